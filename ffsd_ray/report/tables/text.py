"""Tables as text in rows and columns, which the renderers print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

#: Between a mean and its standard deviation; where there is little room, a renderer breaks the line here.
PLUS_MINUS = " ± "


@dataclass(frozen=True)
class Section:
    """Rows under one head; `title` stands above the first column ('' for none)."""

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TableText:
    """A table as text. The first two columns of `head` say what a row is; a narrow terminal repeats them."""

    title: str
    captions: tuple[str, ...]
    head: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    #: What stands below all, a line each; on a terminal alone.
    closing: tuple[str, ...] = ()
    #: Columns from the left that are words rather than numbers.
    words: int = 1


class Printable(Protocol):
    """A table that can be printed."""

    @property
    def damages(self) -> tuple[str, ...]:
        """Messages on the damaged records of trials that are left out, each naming a file."""

    @property
    def title(self) -> str: ...

    @property
    def captions(self) -> tuple[str, ...]: ...

    def text(self) -> TableText:
        """The table for people: rounded numbers, marks where something is missing."""

    def frame(self) -> pd.DataFrame:
        """The table for programs: typed columns (`ffsd_ray.report.tables.frame`), numbers as they were recorded."""


class Notes:
    """Footnotes, each kept once, numbered from 1 in the order in which they first came up."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def footnotes(notes: Sequence[str], numbers: Iterable[int]) -> list[str]:
    """The texts of the notes with these numbers (from 1)."""
    return [notes[number - 1] for number in numbers]


def footnote_marks(numbers: Sequence[int]) -> str:
    """`[1][2]`."""
    return "".join(f"[{number}]" for number in numbers)
