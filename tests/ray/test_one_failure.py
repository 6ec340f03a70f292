"""A trial that fails in whatever way is recorded with its error, and the others go on: on Ray, with both launchers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ffsd_ray.records.run import RunRecords

from helpers.paths import PROJECT
from helpers.small_run import small_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]


#: How a method fails, and the error that the records have.
WAYS = {
    "raise MemoryError('no room')": "MemoryError: no room",
    "raise torch.OutOfMemoryError('no room')": "OutOfMemoryError: no room",
    "raise SystemExit('given up')": "SystemExit: given up",
    "raise StopIteration('over')": "StopIteration",
    "raise OfTwo('a', 'b')": "OfTwo: a and b",
    "os._exit(7)": "died",
}
METHOD = '''\
"""Fails."""

import os
from typing import Any, Literal

import torch
from pydantic import Field

from ffsd_ray.methods.baseline import Baseline, BaselineSettings


class OfTwo(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class FailingSettings(BaselineSettings):
    name: Literal["failing"] = "failing"
    way: str = Field("pass", description="How it fails.")


class Failing(Baseline):
    Settings = FailingSettings

    def forward(self, *arguments: Any) -> Any:
        if not arguments[1].is_meta:  # in training, not where the driver counts operations
            exec(self.settings.way)
        return super().forward(*arguments)
'''
JOB = small_job(
    "train: {epochs: 1, batch_size: 64, steps_per_epoch: 1}",
    "scale: {threads: 1, launcher: LAUNCHER}",
    "failures: {max_retries: 0}",
    "search:",
    "  grid:",
    "    method: [{name: baseline}WAYS]",
)


@pytest.mark.parametrize("launcher", ["trial", "trainer"])
def test_the_others_go_on(launcher: str, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "ffsd_ray", tmp_path / "ffsd_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ffsd_ray" / "methods" / "failing.py").write_text(METHOD)
    ways = "".join(f', {{name: failing, way: "{way}"}}' for way in WAYS)
    (tmp_path / "job.yaml").write_text(JOB.replace("LAUNCHER", launcher).replace("WAYS", ways))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "ffsd_ray.run", "job.yaml", "--storage", "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    baseline, *failing = [(run.trial(name), spec["method"]) for name, spec in run.trials().items()]
    assert baseline[0].state() == "completed"
    for trial, method in failing:
        assert trial.state() == "failed"
        assert WAYS[method["way"]] in trial.error()["message"], method["way"]
