"""What a job would leave idle of this machine is said."""

import os
from pathlib import Path

import pytest
import torch

from ffsd_ray.config.load import load_job
from ffsd_ray.run import idle_parts

JOB = "name: j\ncontext: CONTEXT\ndata: digits\nbackbone: resnet8\nmethod: ffsd\nseed: [0, 1]\n"


@pytest.mark.parametrize(
    ("context", "cores", "options", "said"),
    [
        ("local", 16, (), "Of this machine's 16 cores 1 will be at work; scale.threads: 16 uses all of them."),
        ("ray", 16, (), "Of this machine's 16 cores 2 will be at work; scale.cpus_per_worker: 8 uses all of them."),
        ("ray", 16, ("scale.cpus_per_worker=8",), None),
        ("local", 2, (), None),
        ("ray", 4, ("seed=[0, 1, 2]",), None),
    ],
)
def test_processors(
    context: str,
    cores: int,
    options: tuple[str, ...],
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("CONTEXT", context))
    plan = load_job(job, options)
    assert list(idle_parts(plan)) == ([] if said is None else [said])
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert list(idle_parts(plan)) == []


def test_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("CONTEXT", "ray"))
    assert "GPU stands idle" in next(idle_parts(load_job(job)))
    assert list(idle_parts(load_job(job, ["scale.gpus_per_worker=0.5"]))) == []
