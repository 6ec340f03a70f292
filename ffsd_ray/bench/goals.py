"""Goals, and whether they are met."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table


class Goal(NamedTuple):
    """A figure, None where it was not measured, and the bound that it is to keep."""

    name: str
    figure: float | None
    kind: Literal["at least", "at most"]
    bound: float
    unit: str = ""

    @property
    def met(self) -> bool:
        if self.figure is None:
            return False
        return self.figure >= self.bound if self.kind == "at least" else self.figure <= self.bound

    def record(self) -> dict[str, Any]:
        return self._asdict() | {"met": self.met}


def goal_table(goals: Sequence[Goal]) -> Table:
    table = Table(title="goals")
    for heading in ("", "measured", "goal", "met"):
        table.add_column(heading, justify="left" if heading in ("", "met") else "right")
    for goal in goals:
        measured = "not measured" if goal.figure is None else f"{goal.figure:.3g}{goal.unit}"
        answer = "yes" if goal.met else "-" if goal.figure is None else "NO"
        table.add_row(goal.name, measured, f"{goal.kind} {goal.bound:g}{goal.unit}", answer)
    return table


def status(goals: Sequence[Goal]) -> int:
    """A command's exit status: 0 where every goal is met, 1 where one falls short or was not measured."""
    return 0 if all(goal.met for goal in goals) else 1
