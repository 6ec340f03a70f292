"""A table for the terminal, in Markdown and as CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ffsd_ray.report.tables.text import PLUS_MINUS, Printable, TableText
from ffsd_ray.terminal import plain

#: Columns that say what a row is.
_LEADING = 2


def render_terminal(table: Printable) -> RenderableType:
    """For rich's `Console.print`. Where it is narrow, ± goes below its mean, then columns into further blocks."""
    return _Terminal(table.sheet())


@dataclass(frozen=True)
class _Terminal:
    sheet: TableText

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        sheet = self.sheet
        yield Text(sheet.title, style="bold")
        yield from map(Text, sheet.captions)
        titles = [section.title or sheet.head[0] for section in sheet.sections]
        names = [row[0] for section in sheet.sections for row in section.rows]
        name = min(max(map(len, [*titles, *names]), default=0), options.max_width // 3)
        plus_minus, gap = PLUS_MINUS.rstrip(), 2
        _, second, *others = self._widths(plus_minus)
        room = options.max_width - name - second - 2
        if sum(others) + gap * len(others) > room:
            plus_minus, gap = "\n±", 1
            _, second, *others = self._widths(plus_minus)
        widths = [name, second, *others]
        for title, section in zip(titles, sheet.sections, strict=True):
            for block in _blocks(dict(enumerate(widths[_LEADING:], _LEADING)), room, gap):
                yield Text()
                yield self._grid(title, section.rows, [*range(_LEADING), *block], widths, plus_minus, gap)
        yield from (Text(note, style="dim") for note in _numbered(sheet))

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
            head = self.sheet.head[index] if index else title
            grid.add_column(Text(head), width=widths[index], justify="left" if index < self.sheet.words else "right")
        above = ""
        for row in rows:
            name = "" if row[0] == above else row[0]
            grid.add_row(Text(name), *(Text(_folded(row[index], plus_minus)) for index in columns[1:]))
            above = row[0]
        return grid

    def _widths(self, plus_minus: str) -> list[int]:
        """Widths of the columns in characters, so that neither a word of a heading nor a line of a cell is broken."""
        rows = [row for section in self.sheet.sections for row in section.rows]
        return [
            max(
                len(part)
                for part in [*head.split(), *(line for row in rows for line in _folded(row[i], plus_minus).split("\n"))]
            )
            for i, head in enumerate(self.sheet.head)
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


def render_markdown(table: Printable) -> str:
    """A heading, the captions, a table a section and the notes."""
    sheet = table.sheet()
    lines = [f"### {_plain(sheet.title)}", *(f"\n{_plain(caption)}" for caption in sheet.captions)]
    dashes = ["---" if index < sheet.words else "---:" for index in range(len(sheet.head))]
    for section in sheet.sections:
        lines += [f"\n**{_plain(section.title)}**"] if section.title else []
        lines += ["", _line(sheet.head), _line(dashes), *map(_line, section.rows)]
    lines += [f"\n[{number}] {_plain(note)}" for number, note in enumerate(sheet.notes, 1)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names and errors may hold elements, links, borders of tables and headings."""
    return re.sub(r"([\\`*<|&]|(?<=\])[(:]|^[#>+=~-](?!\d))", r"\\\1", plain(" ".join(text.split())))


def render_csv(table: Printable) -> str:
    """A line a record under a head."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_inert(cell) for cell in line] for line in table.records())
    return out.getvalue()


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe, a number none."""
    text = plain(cell, keep="")
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
    return text


def _numbered(sheet: TableText) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(sheet.notes, 1)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"
