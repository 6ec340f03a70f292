"""Collecting everything that is wrong with a job, to say it all at once."""

import json
from typing import Any, NamedTuple

from ffsd_ray.credentials import hidden
from ffsd_ray.errors import JobError
from ffsd_ray.terminal import plain

_LONGEST_VALUE = 60


class Place(NamedTuple):
    """Where something was said: a file's line and column (from 1), or an option of the command line (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Problems:
    """Problems by place, key path and what was expected; the same one in many trials is kept once and counted."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str, str], list[Any]] = {}
        self._unreadable: set[Place] = set()

    def add(self, place: Place, key: str, expected: str, value: str = "", *, in_trial: bool = False) -> None:
        """Add a problem. `key`: the dotted path, or ''; `value`: from `format_value`; `expected`: a sentence."""
        if place not in self._unreadable:
            entry = self._found.setdefault((place, key, expected), [value, 0])
            entry[1] += in_trial

    def add_unreadable(self, place: Place, key: str, expected: str, value: str = "") -> None:
        """A value of which nothing else can be said: later problems at `place` follow from this one."""
        self.add(place, key, expected, value)
        self._unreadable.add(place)

    def check(self, trials: int = 1) -> None:
        """Do nothing where all is well.

        Raises:
            JobError: a paragraph a problem, in the order of the file; a last line with their number.
        """
        if not self._found:
            return
        paragraphs = []
        for (place, key, expected), (value, count) in sorted(self._found.items(), key=lambda item: item[0][0]):
            key_and_value = plain(f"  {key} = {value}" if key and value else f"  {key}" if key else "", keep="")
            share = f"all {trials}" if count == trials else f"{count} of {trials}"
            often = f" (in {share} trials)" if count and trials > 1 else ""
            paragraphs.append(f"{place}{key_and_value}\n  {expected}{often}")
        number = len(paragraphs)
        paragraphs.append(f"{number} problem{'s' if number > 1 else ''}")
        raise JobError(hidden("\n\n".join(paragraphs)))


def format_value(value: object) -> str:
    """A value as a job file would have it, on one line and not too long."""
    text = hidden(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
