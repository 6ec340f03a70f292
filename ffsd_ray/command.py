"""What every command shares."""

import codecs
import functools
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from ffsd_ray.errors import UserError
from ffsd_ray.terminal import plain_streams

#: What is written in place of a sign that a terminal or a file's encoding does not have.
_READABLE = {
    "±": "+-", "×": "x", "−": "-", "–": "-", "÷": "/", "…": "...", "→": "->", "✓": "ok", "✗": "failed", "≥": ">=",
    "≤": "<=", "λ": "lambda", "α": "alpha", "Σ": "sum", "Δ": "delta", "²": "^2", "·": "*", "━": "-", "─": "-",
    "│": "|", "╸": "-", "╺": "-",
}  # fmt: skip


class Main(Protocol):
    """A command: its arguments (None: the process's own) to its exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(main: Main) -> Main:
    """Make a command print what a user can mend as one message and return its status.

    That is a UserError, and a file that cannot be read or written. Where whoever reads the output has gone (`| head`)
    the command ends without a word. Whatever it writes is cleaned of what a terminal would obey.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            _write_readably(stream)
        with plain_streams(restore=argv is not None):
            try:
                status = main(argv)
                sys.stdout.flush()
                return status
            except UserError as error:
                print(error, file=sys.stderr)
                return error.status
            except BrokenPipeError:
                with open(os.devnull, "w") as nothing:
                    # else Python says at its end that it could not flush
                    os.dup2(nothing.fileno(), sys.stdout.fileno())
                return 1
            except OSError as error:
                if error.filename is None:
                    raise
                print(f"{os.fsdecode(error.filename)}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
                return UserError.status

    return run


def _write_readably(stream: TextIO) -> None:
    """Have a stream write signs that its encoding lacks in other words, in place of raising."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    if isinstance(stream, io.TextIOWrapper) and not encoding.startswith("utf"):
        stream.reconfigure(errors="readable")


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(_READABLE.get(sign, "?") for sign in signs), error.end


codecs.register_error("readable", _in_other_words)
