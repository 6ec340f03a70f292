"""Every process of a run is killed, twice in a row: what can go on does, and ends as it would have."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from helpers.commands import command, run, trials, wait_for
from helpers.comparison import assert_same_end
from helpers.holding import Hold
from helpers.small_run import small_job
from helpers.workers import undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow]

JOB = small_job(
    "method: {name: ffsd}",
    "train: {epochs: 4, batch_size: 16, lr: 0.05, steps_per_epoch: 3}",
    "scale: {threads: 1, launcher: trainer}",
    "records: {reuse: false}",
)
#: What is trained goes on with new ones.
REPLACED = {
    "trial": "ray::(run_trial|ImplicitFunc)",
    "worker": "ray::RayTrainWorker",
    "synchronisation": "ray::SynchronizationActor",
}
#: It goes on without, and nothing takes their place.
DISPENSABLE = {"log monitor": r"log_monitor\.py"}
#: The cluster goes with them.
LOST = {"raylet": "raylet/raylet ", "head": "gcs_server"}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def start(job: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(job, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_one(run: int, kind: str) -> None:
    """Kill a process below the run whose command line has `kind` in it."""
    for process in psutil.Process(run).children(recursive=True):
        if re.search(kind, " ".join(process.cmdline())):
            os.kill(process.pid, signal.SIGKILL)
            return
    raise AssertionError(f"no process {kind}")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", REPLACED)
def test_a_run_goes_on(kind: str, workers: int, job: Path, hold: Hold) -> None:
    """On as many CPUs as it needs: nothing that was reserved for a process that is gone may stay so."""
    held = hold.at("ffsd", epoch=2)
    process = start(job, "--set", f"scale.workers={workers}", "--set", "failures.max_retries=2")
    wait_for(held, "the second epoch")
    kill_one(process.pid, REPLACED[kind])
    wait_for(hold.at("ffsd", epoch=3), "the third epoch")
    kill_one(process.pid, REPLACED[kind])
    hold.release()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    [records] = trials(job).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


@pytest.mark.parametrize("kind", DISPENSABLE)
def test_a_run_goes_on_without(kind: str, job: Path, hold: Hold) -> None:
    held = hold.at("ffsd", epoch=2)
    process = start(job)
    wait_for(held, "the second epoch")
    kill_one(process.pid, DISPENSABLE[kind])
    hold.release()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    [records] = trials(job).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


@pytest.mark.parametrize("kind", LOST)
def test_a_run_ends_and_is_resumed(kind: str, job: Path, hold: Hold) -> None:
    held = hold.at("ffsd", epoch=2)
    process = start(job, "--set", "scale.workers=2")
    wait_for(held, "the second epoch")
    kill_one(process.pid, LOST[kind])
    output, _ = process.communicate()
    hold.release()
    assert process.returncode == 1, output
    assert "--resume" in output
    assert "Traceback" not in output
    resumed = run(job, "--set", "scale.workers=2", "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    [records] = trials(job).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))
