"""A run's accuracies against one of its settings: what a line plot shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.labels import has, values
from ffsd_ray.report.row import Cell, Epoch, Row
from ffsd_ray.report.table import result_table
from ffsd_ray.spec.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.spec.load import value_at, varying
from ffsd_ray.spec.problems import shown
from ffsd_ray.spec.trial import TrialSpec

#: The columns of a run's table that are drawn.
SERIES = ("Ens (any)", "Ens (logits)", "Fusion", "Leader", "Mean of common", "Baseline")

#: What a key is set to; lists as text.
Value = float | str


@dataclass(frozen=True)
class Panel:
    """The curves of configurations that differ in the key alone."""

    #: What tells this panel from the others; '' for an only one.
    name: str
    #: Accuracy in percent at each value, by column of the run's table.
    curves: dict[str, dict[Value, Cell]]
    #: The accuracy of the network trained alone, where it is the same at every value; else it is a curve.
    baseline: Cell | None


@dataclass(frozen=True)
class Curves:
    """`values`: all that the key takes; numbers in ascending order, others as in the job."""

    title: str
    captions: tuple[str, ...]
    key: str
    values: tuple[Value, ...]
    panels: tuple[Panel, ...]


def curves(run: RunRecords, key: str, epoch: Epoch) -> Curves:
    """Mean and standard deviation over seeds of the accuracies at each value of `key` (dotted).

    Raises:
        JobError: trials have no such key.
        RecordsError: no completed trials differ in it alone; the records are of another version.
    """
    if key not in TRIAL_KEYS or "." not in key:
        raise JobError(f"--plot {key}: not a setting of trials.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}")
    table = result_table(run, [epoch])
    groups: dict[str, dict[Value, Row]] = {}
    for row in table.rows:
        if row.seeds and has(row.spec, key):
            groups.setdefault(_others(row.spec, key), {})[_value(row.spec, key)] = row
    # Where other keys are swept beside this one, most configurations have but one value of it.
    lines = [group for group in groups.values() if len(group) > 1]
    if not lines:
        said = "no two completed configurations differ in it alone"
        raise RecordsError(f"{run.store.location}: nothing to plot against {key}: {said}")
    # With other methods the baseline is in their panels.
    lines = [group for group in lines if not _is_baseline(group)] or lines
    rows = [row for group in lines for row in group.values()]
    found = list(dict.fromkeys(_value(row.spec, key) for row in rows))
    firsts = [next(iter(group.values())).spec for group in lines]
    telling = [name for name in varying(firsts) if name != key]
    captions = [caption for caption in table.captions if not caption.startswith("Gain: ")]
    return Curves(
        title=table.title,
        captions=(*captions, *dict.fromkeys(_missing(rows, table.notes))),
        key=key,
        values=tuple(_ordered(found)),
        panels=tuple(
            _panel(", ".join(values(first, telling)), group) for first, group in zip(firsts, lines, strict=True)
        ),
    )


def _value(spec: TrialSpec, key: str) -> Value:
    value = value_at(spec, key)
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else shown(value)


def _ordered(found: Sequence[Value]) -> Sequence[Value]:
    numbers = [value for value in found if not isinstance(value, str)]
    return sorted(numbers) if len(numbers) == len(found) else found


def _others(spec: TrialSpec, key: str) -> str:
    """Everything else that a configuration is; with the name of a part goes what is set for that part."""
    content = spec.model_dump()
    section, _, name = key.partition(".")
    if name == "name":
        del content[section]
    else:
        del content[section][name]
    return json.dumps(content, sort_keys=True)


def _is_baseline(group: Mapping[Value, Row]) -> bool:
    return all(isinstance(row.spec.method, BaselineSettings) for row in group.values())


def _panel(name: str, group: Mapping[Value, Row]) -> Panel:
    drawn = {
        column: {value: row.cells[column] for value, row in group.items() if column in row.cells} for column in SERIES
    }
    baselines = drawn["Baseline"]
    baseline = None
    if not _is_baseline(group) and len(set(baselines.values())) == 1:
        (baseline,) = set(drawn.pop("Baseline").values())
    return Panel(name, {column: curve for column, curve in drawn.items() if curve}, baseline)


def _missing(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    return [notes[number - 1] for row in rows for number in row.notes.get("n", ())]
