"""Records of runs that never ran, with results computed by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

import pytest

from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store

#: What a trial ended with: its result; an error's message; None: begun and not finished; ...: not begun.
Outcome = Mapping[str, Any] | str | EllipsisType | None


def result(
    spec: TrialSpec, best: float, last: float, selection: str = "test", series: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """A result in which every series has its own accuracy: `best` or `last` plus its place in the list / 100.

    `series`: other accuracies at the best epoch.
    """
    common = [f"student{i + 1}" for i in range(getattr(spec.method, "students", 0))]
    led = spec.method.name == "ffsd" or getattr(spec.method, "leader", False)
    fused = ["fusion"] if led and getattr(spec.method, "fusion", True) else []
    members = [*common, *(["leader"] if led else []), *fused] or ["student"]
    together = ["students_mean", "ensemble_any", "ensemble_logits"] if common else []
    deployed = "leader" if led else members[0]
    names = [*members, *together]
    splits = dict.fromkeys(["test", selection])
    tops = {name: best + i / 100 for i, name in enumerate(names)} | dict(series or {})
    return {
        "epochs": spec.train.epochs,
        "members": members,
        "common": common,
        "deployed": deployed,
        "primary_series": "students_mean" if common and not led else deployed,
        "selection": selection,
        "last": {"epoch": 10, "images_per_second": 100.0}
        | {f"{split}/{name}/top1": last + i / 100 for split in splits for i, name in enumerate(names)},
        "best": {name: {"epoch": 7, "selected_by": top, "top1": top} for name, top in tops.items()},
        "classes": spec.data.known_classes or 10,
        "image_size": spec.data.known_size or 32,
        "parameters": {"trained": 1, "deployed": 1},
        "seconds": 3600.0,
    }


def write_run(folder: Path, job: str, outcome: Callable[[TrialSpec], Outcome]) -> RunRecords:
    """The records of the job as they would be once each of its trials came to its outcome."""
    file = folder / "job.yaml"
    file.write_text(job)
    plan = load_job(file)
    run = RunRecords(Store(str(folder / "run")))
    run.begin(
        plan.text, plan.job.model_dump(), plan.overrides, {spec.identity(): spec.model_dump() for spec in plan.trials}
    )
    for spec in plan.trials:
        end = outcome(spec)
        if end is ...:
            continue
        trial = run.trial(spec.identity())
        trial.begin(spec.model_dump(), {"device": {"type": "cpu", "name": "CPU", "workers": 1, "threads": 1}})
        if isinstance(end, str):
            trial.fail("TrialError", end)
        elif end is not None:
            trial.write_history([end["last"]])
            trial.finish(end)
    return run


def approx_cell(mean: float, std: float | None, abs: float = 1e-9) -> Any:
    """What a cell of a table is compared with, up to an absolute difference."""
    return (pytest.approx(mean, abs=abs), None if std is None else pytest.approx(std, abs=abs))
