"""A table for the terminal, in Markdown and as CSV."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ffsd_ray.report.table import Epoch, Row, Table

_EPOCHS: tuple[Epoch, ...] = ("best", "last")


def render_terminal(table: Table) -> RenderableType:
    """For rich's `Console.print`. Where it is narrow, ± goes below its mean, then columns into further blocks."""
    return _Terminal(table)


@dataclass(frozen=True)
class _Terminal:
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        yield Text(table.title, style="bold")
        yield from map(Text, table.captions)
        name = min(max([len("Best epoch"), *(len(row.configuration) for row in table.rows)]), options.max_width // 3)
        count = max([1, *(len(_count(row)) for row in table.rows)])
        room = options.max_width - name - count - 2
        plus_minus, gap = " ±", 2
        widths = self._widths(plus_minus)
        if sum(widths.values()) + gap * len(widths) > room:
            plus_minus, gap = "\n±", 1
            widths = self._widths(plus_minus)
        for epoch in _EPOCHS:
            rows = table.at(epoch)
            for block in _blocks(widths, room, gap) if rows else ():
                grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, gap - 1))
                grid.add_column(f"{epoch.capitalize()} epoch", width=name)
                grid.add_column("n", width=count, justify="right")
                for column in block:
                    grid.add_column(column, width=widths[column], justify="right", vertical="top")
                for row in rows:
                    values = (Text(_value(row, column, plus_minus)) for column in block)
                    grid.add_row(Text(row.configuration), Text(_count(row)), *values)
                yield Text()
                yield grid
        yield from (Text(note, style="dim") for note in _numbered(table))

    def _widths(self, plus_minus: str) -> dict[str, int]:
        """Of each column in characters, so that neither a word of its head nor a line of its cells is broken."""
        cells = {column: [_value(row, column, plus_minus) for row in self.table.rows] for column in self.table.columns}
        return {
            column: max(len(part) for part in [*column.split(), *(line for text in texts for line in text.split("\n"))])
            for column, texts in cells.items()
        }


def _blocks(widths: Mapping[str, int], room: int, gap: int) -> list[list[str]]:
    """The columns in as few groups as fit into `room` characters, each at least one column."""
    blocks: list[list[str]] = []
    left = 0
    for column, width in widths.items():
        if not blocks or width + gap > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= width + gap
    return blocks


def render_markdown(table: Table) -> str:
    """A heading, the captions, a table an epoch and the notes."""
    lines = [f"### {table.title}", *(f"\n{caption}" for caption in table.captions)]
    head = ["Configuration", "n", *table.columns]
    for epoch in _EPOCHS:
        rows = table.at(epoch)
        if rows:
            lines += [
                "",
                f"**{epoch.capitalize()} epoch**",
                "",
                _line(head),
                _line(["---", *["---:"] * (len(head) - 1)]),
            ]
        for row in rows:
            values = [_value(row, column, " ± ") for column in table.columns]
            lines.append(_line([row.configuration.replace("|", "\\|"), _count(row), *values]))
    lines += [f"\n{note}" for note in _numbered(table)]
    return "\n".join(lines) + "\n"


def render_csv(table: Table) -> str:
    """A line a configuration and epoch; mean and std in columns of their own, what is missing in `notes`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    pairs = [name for column in table.columns for name in (column, f"{column} std")]
    writer.writerow(["configuration", "epoch", "n", "seeds", *pairs, "notes"])
    for row in table.rows:
        values: list[str] = []
        for column in table.columns:
            mean, std = row.cells.get(column, (None, None))
            values += ["" if value is None else f"{value:.2f}" for value in (mean, std)]
        notes = "; ".join(table.notes[number - 1] for numbers in row.notes.values() for number in numbers)
        seeds = " ".join(map(str, row.seeds))
        writer.writerow([row.configuration, row.epoch, len(row.seeds), seeds, *values, notes])
    return out.getvalue()


def _value(row: Row, column: str, plus_minus: str) -> str:
    cell = row.cells.get(column)
    if cell is None:
        return _marks(row, column)
    return f"{cell.mean:.2f}" if cell.std is None else f"{cell.mean:.2f}{plus_minus}{cell.std:.2f}"


def _count(row: Row) -> str:
    return f"{len(row.seeds)} {_marks(row, 'n')}".rstrip()


def _marks(row: Row, column: str) -> str:
    return "".join(f"[{number}]" for number in row.notes.get(column, ()))


def _numbered(table: Table) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(table.notes, 1)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
