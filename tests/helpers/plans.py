"""Job files that differ from a common one in a few sections, and one that is refused."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.varying import value_at

#: YAML of six lines whose aliases stand for a million values.
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n" for before, after in itertools.pairwise("abcdef")
)


class LoadJob:
    """Loads a job file that is written for the purpose: the sections of `base`, some of them exchanged."""

    def __init__(self, folder: Path, base: Mapping[str, Any]) -> None:
        self._file, self._base = folder / "job.yaml", dict(base)

    def __call__(self, *overrides: str, **sections: Any) -> Plan:
        self._file.write_text(yaml.safe_dump(self._base | sections, sort_keys=False))
        return load_job(self._file, overrides)


def values(plan: Plan, *keys: str) -> list[tuple[Any, ...]]:
    """The values that each trial of a plan has for the dotted keys."""
    return [tuple(value_at(trial, key) for key in keys) for trial in plan.trials]
