"""`python -m ffsd_ray.run` as a user calls it: on real Ray clusters, in processes of their own."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from helpers.commands import command, run, trials, wait_for
from helpers.comparison import assert_same_end
from helpers.holding import Hold
from helpers.workers import undisturbed

pytestmark = pytest.mark.ray

JOB = """\
name: small
data: {name: digits, image_size: 12}
backbone: {name: resnet8}
train: {epochs: 3, batch_size: 32, lr: 0.05, steps_per_epoch: 3}
scale: {threads: 1}
records: {reuse: false}
search:
  grid:
    method: [{name: baseline}, {name: ffsd}]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_ray_computes_what_local_does(job: Path) -> None:
    """Trials of one worker, in Tune's own processes."""
    on_ray = run(job)
    assert on_ray.returncode == 0, on_ray.stdout + on_ray.stderr
    assert "ray" not in on_ray.stderr.lower(), "Ray's own messages are silenced"
    found = trials(job)
    assert {name: records.state() for name, records in found.items()} == {"baseline": "completed", "ffsd": "completed"}
    for method, records in found.items():
        assert_same_end(records, undisturbed(records, job.parent / "whole" / method))
    table = on_ray.stdout[on_ray.stdout.index("Baseline") :]
    assert "Leader" in table
    assert "Gain" in table
    assert f"Records: {job.parent}/runs/small" in on_ray.stdout
    assert "epoch 3/3" in on_ray.stdout


@pytest.mark.slow
def test_two_workers_on_ray_compute_what_two_alone_do(job: Path) -> None:
    """A trial of Ray Train's."""
    on_ray = run(job, "--set", "scale.workers=2", "--set", "search.grid.method=[ffsd]")
    assert on_ray.returncode == 0, on_ray.stdout + on_ray.stderr
    [records] = trials(job).values()
    assert records.state() == "completed"
    assert records.environment()["device"]["workers"] == 2
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


@pytest.mark.slow
@pytest.mark.thorough
def test_a_failing_trial_leaves_the_others_alone(job: Path) -> None:
    job.write_text(JOB + "  also: [{method: {name: dml}, train: {lr: 1.0e+12}}]\n")
    done = run(job)
    assert done.returncode == 1, done.stdout + done.stderr
    found = trials(job)
    assert {name: t.state() for name, t in found.items()} == {
        "baseline": "completed",
        "ffsd": "completed",
        "dml": "failed",
    }
    assert "is not finite (epoch 1, step" in found["dml"].error()["message"]
    assert "is not finite" in done.stdout


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(job: Path, hold: Hold, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = job.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # paths of sockets must be short
    settings = ["--set", "scale.trials_at_once=1"]
    held = hold.at("ffsd", epoch=2)
    process = subprocess.Popen(
        command(job, *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    wait_for(held, "the second trial's second epoch")
    assert list(temporary.glob("ffsd_ray-small-*"))
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does, to every process of the foreground
    else:
        process.send_signal(sent)
    output, _ = process.communicate()
    hold.release()
    assert process.returncode == 130, output
    assert "Interrupted. 1 of 2 trials are completed" in output
    assert "Traceback" not in output
    assert not list(temporary.glob("ffsd_ray-small-*"))
    resumed = run(job, *settings, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "goes on after epoch 1" in resumed.stdout
    assert "baseline: starts" not in resumed.stdout
    for method, records in trials(job).items():
        assert_same_end(records, undisturbed(records, job.parent / "whole" / method))


@pytest.mark.thorough
def test_a_killed_worker_is_replaced(job: Path, hold: Hold) -> None:
    settings = ["--set", "scale.workers=2", "--set", "search.grid={}", "--set", "method.name=ffsd"]
    held = hold.at("ffsd", epoch=3)
    process = subprocess.Popen(command(job, *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(held, "the third epoch")
    os.kill(ray_worker_below(process.pid), signal.SIGKILL)
    wait_for(hold.at("ffsd", epoch=3, anew=True), "the third epoch again: what went before was kept")
    hold.release()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    [records] = trials(job).values()
    assert [row["epoch"] for row in records.history()] == [1, 2, 3]
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


def ray_worker_below(parent: int) -> int:
    """The id of a process that trains for the run `parent`."""
    for process in psutil.Process(parent).children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            return process.pid
    raise AssertionError("no training worker found")
