"""How trials are started, placed and retried: on real Ray clusters, in processes of their own."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from safetensors.torch import load

from ffsd_ray.config.load import load_job
from ffsd_ray.job_resources import with_resources
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import MODEL_BEST, MODEL_LAST, TrialRecords

from helpers.commands import command, run, trials, wait_for
from helpers.comparison import assert_equal, assert_same_end, measured
from helpers.holding import Hold
from helpers.ray_state import alive
from helpers.small_run import small_job
from helpers.workers import undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.thorough]

JOB = small_job(
    "train: {epochs: 3, batch_size: 16, lr: 0.05, steps_per_epoch: 2}",
    "scale: {threads: 1, gpus_per_worker: 0, launcher: trial}",
    "records: {reuse: false}",
    "search:",
    "  grid:",
    "    method: [{name: baseline}, {name: ffsd}]",
)
ONE = ("--set", "search.grid={}", "--set", "method.name=ffsd")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def start(job: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(job, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )


def below(parent: int, name: str) -> list[psutil.Process]:
    """The processes below `parent` whose command line begins with `name`."""
    found = psutil.Process(parent).children(recursive=True)
    return [process for process in found if " ".join(process.cmdline()).startswith(name)]


def trainings(parent: int) -> list[psutil.Process]:
    """The processes of Tune's trials in the run `parent`."""
    return below(parent, "ray::run_trial") + below(parent, "ray::ImplicitFunc")


@pytest.mark.slow
def test_both_launchers_compute_the_same(job: Path) -> None:
    for launcher in ("trial", "trainer"):
        done = run(job, "--set", f"name={launcher}", "--set", f"scale.launcher={launcher}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ray" not in done.stderr.lower(), "Ray's own messages are silenced"
    for method, here in trials(job, "trial").items():
        there = trials(job, "trainer")[method]
        assert_equal(here.checkpoints.latest(), there.checkpoints.latest())
        assert measured(here.history()) == measured(there.history())
        for name in (MODEL_BEST, MODEL_LAST):  # their cards tell the launcher
            assert_equal(load(here.store.read(name)), load(there.store.read(name)))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["trial", "trainer"])
def test_a_process_takes_one_trial_after_another(job: Path, launcher: str) -> None:
    """Which it trains, or whose workers it watches."""
    settings = (f"scale.launcher={launcher}", "scale.trials_at_once=1", "train.epochs=5", "seed=[0,1]")
    process = start(job, *(argument for setting in settings for argument in ("--set", setting)))
    seen: set[int] = set()
    output = []
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if "epoch 1/5" in line:
            seen |= {found.pid for found in trainings(process.pid)}
    assert process.wait() == 0, "".join(output)
    assert len(seen) == 1
    assert {records.state() for records in trials(job).values()} == {"completed"}


def test_a_killed_trial_goes_on_from_its_checkpoint(job: Path, hold: Hold) -> None:
    held = hold.at("ffsd", epoch=3)
    process = start(job, *ONE)
    wait_for(held, "the third epoch")
    [victim] = trainings(process.pid)
    os.kill(victim.pid, signal.SIGKILL)
    hold.release()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "it is begun again from its last checkpoint" in output
    assert "goes on after epoch 2" in output
    [records] = trials(job).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


@pytest.mark.slow
def test_what_a_retry_would_only_meet_again_is_not_retried(job: Path) -> None:
    done = run(job, "--set", "train.lr=1.0e+12")
    assert done.returncode == 1, done.stdout + done.stderr
    for records in trials(job).values():
        assert records.state() == "failed"
        assert records.error()["kind"] == "TrialError"
        assert "is not finite (epoch 1, step" in records.error()["message"]
    assert done.stdout.count(": starts") == 2
    assert "begun again" not in done.stdout


@pytest.mark.slow
def test_what_raises_is_retried_then_recorded(job: Path) -> None:
    planned = run(job, *ONE, "--set", "train.epochs=1")
    assert planned.returncode == 0
    [identity] = RunRecords.open(str(job.parent / "runs" / "small")).trials()
    broken = job.parent / "runs" / "broken" / "trials" / identity
    broken.mkdir(parents=True)
    (broken / "checkpoints").write_text("a file where a folder belongs")
    settings = ["--set", "name=broken", "--set", "failures.max_retries=1"]
    done = run(job, *ONE, "--set", "train.epochs=1", *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    records = RunRecords.open(str(job.parent / "runs" / "broken")).trial(identity)
    assert records.state() == "failed"
    assert "the trial's process failed" in records.error()["message"]
    assert "Failure # 1" in records.error()["details"]
    assert done.stdout.count("it is begun again") == 1


@pytest.mark.slow
def test_a_trial_that_no_node_can_hold_is_refused(job: Path) -> None:
    job.write_text(JOB + "  also: [{method: {name: dml}, scale: {gpus_per_worker: 1}}]\n")
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    done = run(job)
    assert done.returncode == 1, done.stdout + done.stderr
    records = RunRecords.open(str(job.parent / "runs" / "small"))
    found = {spec["method"]["name"]: records.trial(identity) for identity, spec in records.trials().items()}
    states = {name: trial.state() for name, trial in found.items()}
    assert states == {"baseline": "completed", "ffsd": "completed", "dml": "failed"}
    error = found["dml"].error()
    assert error["kind"] == "DoesNotFit"
    assert "it asks for 1 CPU, 1 GPU; the largest is node " in error["message"]
    assert re.search(r"with \d+ CPUs?, 0 GPUs, [\d.]+ GiB of memory", error["message"])
    assert error["message"] in " ".join(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["trial", "trainer"])
def test_more_trials_run_once_there_are_more_nodes(job: Path, hold: Hold, launcher: str) -> None:
    head = {"num_cpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    process = None
    try:
        settings = ["--set", f"scale.launcher={launcher}", "--set", "seed=[0,1,2]", "--set", "search.grid={}"]
        settings += ["--set", "method.name=baseline"]
        held = hold.at("baseline", epoch=2)
        process = start(job, *settings, RAY_ADDRESS=cluster.address)

        def begun() -> list[TrialRecords]:
            records = RunRecords.open(str(job.parent / "runs" / "small"))
            found = [records.trial(identity) for identity in records.trials()]
            return [trial for trial in found if trial.history()]

        wait_for(held, "the first trial's second epoch")
        assert len(begun()) == 1, "one CPU holds one trial"
        cluster.add_node(num_cpus=1, object_store_memory=10**8)
        wait_for(lambda: len(begun()) == 2, "a second trial")
        assert [trial.state() for trial in begun()] == ["unfinished"] * 2, "both run at once"
    finally:
        if process is not None:
            process.terminate()
            process.communicate(timeout=100)
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["trial", "trainer"])
def test_a_failed_trial_leaves_nothing_behind(job: Path, hold: Hold, launcher: str) -> None:
    head = {"num_cpus": 2, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    process = None
    try:
        ray.init(cluster.address, log_to_driver=False)
        settings = ["--set", f"scale.launcher={launcher}", "--set", "scale.trials_at_once=1"]
        settings += ["--set", "search.grid={train.lr: [1.0e+12, 0.05]}", "--set", "method.name=baseline"]
        # The first diverges in its first or its second epoch, which depends on how a CPU rounds.
        held = hold.at("baseline", epoch=3)
        process = start(job, *settings, RAY_ADDRESS=cluster.address)
        folder = job.parent / "runs" / "small" / "trials"
        wait_for(held, "the second trial's third epoch")
        assert len(list(folder.glob("*/error.json"))) == 1, "the first has failed"
        actors, groups = alive()
        assert len(actors) == len(set(actors)), f"of the trial that runs, one of each: {actors}"
        assert groups == {"trial": 1, "trainer": 2}[launcher]
        hold.release()
        output, _ = process.communicate()
        assert process.returncode == 1, output
        wait_for(lambda: alive() == ([], 0), "nothing alive")
    finally:
        if process is not None and process.poll() is None:
            process.terminate()
            process.communicate(timeout=100)
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize("launcher", ["trial", pytest.param("trainer", marks=pytest.mark.slow)])
def test_resumed_after_the_driver_was_killed(job: Path, hold: Hold, launcher: str) -> None:
    settings = ["--set", f"scale.launcher={launcher}", "--set", "scale.trials_at_once=1"]
    folder = job.parent / "runs" / "small" / "trials"
    held = hold.at("ffsd", epoch=2)
    process = start(job, *settings)
    wait_for(held, "a trial completed and the other in its second epoch")
    # Ray's agents, which only observe, take a minute to see that they are alone.
    family = [found for found in psutil.Process(process.pid).children(recursive=True) if "Agent" not in found.name()]
    process.kill()
    process.communicate()
    assert psutil.wait_procs(family, timeout=300)[1] == [], "what trains ends with the driver"
    hold.release()
    ended = {path.parent.name for path in folder.glob("*/result.json")}
    kept = [path for name in ended for path in (folder / name).rglob("*") if path.is_file()]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
    assert len(ended) == 1

    resumed = run(job, *settings, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count(": completed") == 1
    assert "goes on after epoch 1" in resumed.stdout
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == before

    whole = run(job, *settings, "--set", "name=whole", "--set", "context=local")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    first, second = (RunRecords.open(str(job.parent / "runs" / name)) for name in ("small", "whole"))
    assert list(first.trials()) == list(second.trials())
    for identity in first.trials():
        assert_same_end(first.trial(identity), second.trial(identity))
    assert table(resumed) == table(whole)


def table(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout[done.stdout.index("top-1 on the test images") : done.stdout.rindex("Records:")]


def test_a_cluster_is_asked_for_its_gpus(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the job leaves open whether to train on them; they are Ray's book-keeping here."""
    head = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        plan, [line] = with_resources(load_job(job, ["scale={}"]))
        assert {trial.scale.gpus_per_worker for trial in plan.trials} == {1}
        assert "scale.gpus_per_worker: 1 (the cluster has GPUs)" in line
    finally:
        cluster.shutdown()
