"""Columns of accuracies in tables and plots: their names, their order, and the series of a trial that each shows."""

from collections.abc import Iterable, Mapping
from typing import Any

from ffsd_ray.methods import MethodSettings
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.series import ANY, LOGITS, MEAN

#: The network trained alone, and what a method's primary series has more than that.
BASELINE, GAIN = "Baseline", "Gain"
#: The deployed model of a method that is neither the baseline nor one of several common students.
STUDENT = "Student"
#: Accuracies that all common students have together.
TOGETHER = {"Mean of common": MEAN, "Ens (any)": ANY, "Ens (logits)": LOGITS}
#: Members of a group besides its students.
_FURTHER = ("ensemble", "fusion")


def columns_of(result: Mapping[str, Any], method: MethodSettings) -> dict[str, str]:
    """The columns that a completed trial has a value for, in order, each with the name of its series."""
    if result["members"] == [result["deployed"]]:
        return {BASELINE if isinstance(method, BaselineSettings) else STUDENT: result["deployed"]}
    common: list[str] = result["common"]
    columns = {f"Common {number}": name for number, name in enumerate(common, 1)}
    if common:
        columns |= TOGETHER
    columns |= {member.capitalize(): member for member in _FURTHER if member in result["members"]}
    if result["deployed"] not in common:
        columns["Leader"] = result["deployed"]
    return columns


def in_table_order(columns: Iterable[str]) -> tuple[str, ...]:
    """Each of the columns once, as a table has them from left to right; names of other things are left out."""
    used = set(columns)
    common = sorted((name for name in used if name.startswith("Common ")), key=lambda name: int(name.split()[1]))
    further = (member.capitalize() for member in _FURTHER)
    return tuple(name for name in (BASELINE, *common, *TOGETHER, STUDENT, *further, "Leader", GAIN) if name in used)
