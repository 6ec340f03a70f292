"""What of a run is left to train, by its records."""

import threading
from pathlib import Path

import pytest

from ffsd_ray.config.load import load_job
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.remaining import completed_before, damaged_results, to_train, untrained

from helpers.small_run import small_job


def test_sixteen_trials_are_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, a thousand on an object store took minutes before the first could start."""
    file = tmp_path / "job.yaml"
    file.write_text(small_job("method: baseline", f"seed: {list(range(16))}"))
    plan = load_job(file)
    run = RunRecords(Store(str(tmp_path)).child("run"))
    run.begin(plan.text, plan.job.model_dump(), plan.overrides, {t.identity(): t.model_dump() for t in plan.trials})
    together, result = threading.Barrier(16, timeout=60), TrialRecords.result

    def looked_at(trial: TrialRecords) -> dict[str, object]:
        together.wait()
        return result(trial)

    monkeypatch.setattr(TrialRecords, "result", looked_at)
    assert untrained(run, plan) == to_train(run, plan) == list(plan.trials)
    assert damaged_results(run) == []
    assert completed_before(run, []) == 0
    assert run.states() == ["unfinished"] * 16
