"""The commands as a user starts them, in processes of their own, and waiting for what they do."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import TrialRecords


def command(job: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ffsd_ray.run", str(job), "--storage", str(job.parent / "runs"), *arguments]


def run(job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(job, *arguments), capture_output=True, text=True, check=False)


def trials(job: Path, name: str = "small") -> dict[str, TrialRecords]:
    records = RunRecords.open(str(job.parent / "runs" / name))
    found = [records.trial(identity) for identity in records.trials()]
    return {trial.spec()["method"]["name"]: trial for trial in found}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 1500) -> None:
    """`seconds`: far beyond what the slowest machine takes, so that a test that waits in vain ends."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"never seen: {what}"
        time.sleep(0.2)
