"""Text on its way out of the process: what a terminal would obey, or a reader not see, is spelled out.

Names of files, classes, keys and variants, and what exceptions say, may come from anywhere. A command's streams
(`plain_streams`) and consoles (`Screen`) clean all that passes through them, so that no message has to be cleaned by
who writes it; what does not end on a terminal (LaTeX, Markdown, a page) calls `plain` before it is escaped.
"""

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import track
from rich.segment import Segment

#: Control characters (C0, DEL and C1, U+009B among them), what changes the direction of text, other line ends,
#: invisible characters, and halves of surrogate pairs, which no stream can write.
_ACTS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

#: Colours that other packages put into their messages.
_COLOUR = re.compile("\x1b\\[[0-9;]{0,40}m")

T = TypeVar("T")


def plain(text: str, keep: str = "\n\t") -> str:
    """`text` without colours, and with escapes such as `\\x1b` in place of all that acts, but for what to `keep`."""
    if text.isascii() and text.isprintable():
        return text
    uncoloured = _COLOUR.sub("", text)
    return _ACTS.sub(lambda match: match[0] if match[0] in keep else repr(match[0])[1:-1], uncoloured)


def csv_text(text: str) -> str:
    """Text for a cell that no spreadsheet takes for a formula: what begins like one gets an apostrophe."""
    cell = plain(text, keep="")
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) else cell
    return cell


class PlainStream(io.TextIOBase):
    """A stream that cleans what is written to it. It says that it is no terminal, so that nobody sends it colours."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self._rewritable = True

    def write(self, text: str) -> int:
        # A progress bar goes back to the start of its own line; nothing else may.
        back = text.startswith("\r") and self._rewritable
        self.raw.write("\r" * back + plain(text[back:].replace("\r\n", "\n")))
        if text:
            self._rewritable = text.endswith("\n") or (back and "\n" not in text)
        return len(text)

    def flush(self) -> None:
        self.raw.flush()

    def fileno(self) -> int:
        return self.raw.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.raw.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.raw.errors

    @property
    def buffer(self) -> Any:
        return self.raw.buffer


class Screen(Console):
    """A console whose own colours and cursor movements pass, while the text between them is cleaned."""

    def __init__(self, file: IO[str] | PlainStream | None = None, **options: Any) -> None:
        out = sys.stdout if file is None else file
        super().__init__(file=out.raw if isinstance(out, PlainStream) else out, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)


@contextmanager
def plain_streams(*, restore: bool) -> Iterator[None]:
    """Clean what is written to stdout and stderr; without `restore` to the end of the process, its traceback too."""
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is not None and not isinstance(stream, PlainStream):
            setattr(sys, name, PlainStream(stream))
    try:
        yield
    finally:
        if restore:
            sys.stdout, sys.stderr = before


def tracked(items: Iterable[T], description: str, total: int, *, show: bool) -> Iterable[T]:
    """The items, with a progress bar where it is to be shown and stdout is a terminal."""
    screen = Screen()
    return track(items, description, total, console=screen, transient=True, disable=not (show and screen.is_terminal))
