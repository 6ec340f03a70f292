"""Which trials make one row of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffsd_ray.config.keys import TRIAL_KEYS
from ffsd_ray.config.labels import labels, values
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.report.collect import Trial


@dataclass(frozen=True)
class Group:
    """The trials of a row. `spec` is the first one's, mostly without its seed: it has what all share."""

    name: str
    spec: TrialSpec
    trials: tuple[Trial, ...]

    @property
    def completed(self) -> list[tuple[TrialSpec, dict[str, Any]]]:
        """Spec and result of each trial that has completed."""
        return [(trial.spec, trial.result) for trial in self.trials if trial.result is not None]


def without_teachers(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that make rows: those that others only learn from do not, unless there are no others.

    Their seeds are none of the job's: counted among the baselines they would be in no pair with any other row.
    """
    return [trial for trial in trials if not trial.spec.is_teacher] or list(trials)


def configurations(trials: Sequence[Trial], keys: Sequence[str] | None) -> list[Group]:
    """Trials that differ in their seeds alone are a group; `keys` name it, see `labels`."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.spec.configuration().identity(), []).append(trial)
    specs = [group[0].spec.configuration() for group in found.values()]
    return [
        Group(name, spec, tuple(group))
        for name, spec, group in zip(labels(specs, keys), specs, found.values(), strict=True)
    ]


def grouped(trials: Sequence[Trial], keys: Sequence[str]) -> list[Group]:
    """Trials with the same values of the dotted `keys` are a group, whatever else they differ in."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(repr([value_at(trial.spec, key) for key in keys]), []).append(trial)
    groups = []
    for group in found.values():
        spec = group[0].spec if "seed" in keys else group[0].spec.configuration()
        groups.append(Group(", ".join(values(spec, keys)) or _without(group, keys), spec, tuple(group)))
    return groups


def averaged(groups: Sequence[Group]) -> list[str]:
    """The keys in which trials of the same group differ, in the order of the spec."""
    found = {key for group in groups for key in varying([trial.spec for trial in group.trials])}
    return [key for key in TRIAL_KEYS if key in found]


def _without(group: Sequence[Trial], keys: Sequence[str]) -> str:
    """The label of trials that have none of the keys."""
    methods = {trial.spec.method.label() for trial in group}
    return methods.pop() if len(methods) == 1 else f"without {', '.join(key.rpartition('.')[2] for key in keys)}"
