"""Printing a table on a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ffsd_ray.report.tables.text import PLUS_MINUS, Printable, TableText

#: Columns that say what a row is.
_LEADING = 2


def render_terminal(table: Printable) -> RenderableType:
    """For rich's `Console.print`. Where it is narrow, ± goes below its mean, then columns into further blocks."""
    return _Terminal(table.text())


@dataclass(frozen=True)
class _Terminal:
    text: TableText

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text
        yield Text(text.title, style="bold")
        yield from map(Text, text.captions)
        titles = [section.title or text.head[0] for section in text.sections]
        names = [row[0] for section in text.sections for row in section.rows]
        longest, third = max(map(len, [*titles, *names]), default=0), options.max_width // 3
        name = min(longest, third)
        for plus_minus, gap in ((PLUS_MINUS.rstrip(), 2), (PLUS_MINUS.rstrip(), 1), ("\n±", 1)):
            _, second, *others = self._widths(plus_minus)
            room = options.max_width - name - second - 2
            if sum(others) + gap * len(others) <= room:
                break
        # What the other columns leave over.
        name = min(longest, name + max(0, room - sum(others) - gap * len(others)))
        room = options.max_width - name - second - 2
        widths = [name, second, *others]
        for title, section in zip(titles, text.sections, strict=True):
            for block in _blocks(dict(enumerate(widths[_LEADING:], _LEADING)), room, gap):
                yield Text()
                yield self._grid(title, section.rows, [*range(_LEADING), *block], widths, plus_minus, gap)
        yield from (Text(note, style="dim") for note in _numbered(text))
        yield from map(Text, text.closing)

    def _grid(
        self,
        title: str,
        rows: Sequence[Sequence[str]],
        columns: Sequence[int],
        widths: Sequence[int],
        plus_minus: str,
        gap: int,
    ) -> RichTable:
        """Some of the columns of a section; a name that stands above itself is not repeated."""
        grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, gap - 1))
        for index in columns:
            head = self.text.head[index] if index else title
            grid.add_column(Text(head), width=widths[index], justify="left" if index < self.text.words else "right")
        above = ""
        for row in rows:
            name = "" if row[0] == above else row[0]
            grid.add_row(Text(name), *(Text(_folded(row[index], plus_minus)) for index in columns[1:]))
            above = row[0]
        return grid

    def _widths(self, plus_minus: str) -> list[int]:
        """Widths of the columns in characters, so that neither a word of a heading nor a line of a cell is broken."""
        rows = [row for section in self.text.sections for row in section.rows]
        return [
            max(
                len(part)
                for part in [*head.split(), *(line for row in rows for line in _folded(row[i], plus_minus).split("\n"))]
            )
            for i, head in enumerate(self.text.head)
        ]


def _folded(value: str, plus_minus: str) -> str:
    return value.replace(PLUS_MINUS, plus_minus)


def _blocks(widths: Mapping[int, int], room: int, gap: int) -> list[list[int]]:
    """The columns (widths by index) in as few groups as fit into `room` characters, each at least one column."""
    blocks: list[list[int]] = []
    left = 0
    for column, width in widths.items():
        if not blocks or width + gap > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= width + gap
    return blocks


def _numbered(text: TableText) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(text.notes, 1)]
