"""What happens when nodes go, are announced to go, come back, or the head does: on real clusters of several nodes.

A worker that is killed: test_run.py; a driver that is: test_launchers.py.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import psutil
import pytest
from ray._private.node import Node
from ray.cluster_utils import Cluster

from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow

from helpers.commands import command, trials, wait_for
from helpers.comparison import assert_same_end
from helpers.holding import Hold
from helpers.small_run import small_job
from helpers.workers import undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.thorough]

JOB = small_job(
    "method: {name: ffsd}",
    "train: {epochs: 2, batch_size: 6, lr: 0.02, steps_per_epoch: 100}",
    "scale: {threads: 1, gpus_per_worker: 0, workers: 2}",
    "records: {reuse: false}",
)
ELASTIC = small_job(
    "method: {name: ffsd}",
    "train: {epochs: 6, batch_size: 32, lr: 0.001}",
    "scale: {threads: 1, gpus_per_worker: 0, workers: {min: 1, max: 2}}",
    "records: {reuse: false}",
)


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return written(tmp_path, JOB)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing."""
    with head() as started:
        yield started


@contextmanager
def head() -> Iterator[Cluster]:
    options = {"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Cluster) -> Node:
    node: Node = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    return node


def kill(cluster: Cluster, node: Node) -> None:
    """As a machine goes: at once, with all that it runs."""
    os.kill(raylet(node), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


class Driver:
    """`python -m ffsd_ray.run` on a cluster, in the background."""

    def __init__(self, job: Path, address: str, *arguments: str) -> None:
        self._runs = job.parent / "runs" / "small" / "trials"
        self.process = subprocess.Popen(
            command(job, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_ADDRESS": address},
        )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        def seen() -> object:
            assert self.process.poll() is None, self.process.communicate()[0]
            return condition()

        wait_for(seen, what)

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self._runs.glob("*/checkpoints/epoch-*.pt"))

    def history(self) -> list[HistoryRow]:
        return [row for folder in self._runs.glob("*") for row in TrialRecords(Store(str(folder))).history()]

    def completed(self) -> None:
        output, _ = self.process.communicate()
        assert self.process.returncode == 0, output


@pytest.mark.slow
def test_a_node_goes(job: Path, hold: Hold, cluster: Cluster) -> None:
    nodes = [add_node(cluster) for _ in range(3)]
    held = hold.at("ffsd", epoch=2, slowly=True)
    with Driver(job, cluster.address, "--set", "train.checkpoint_steps=20") as driver:
        driver.wait_for(held, "the second epoch")
        driver.wait_for(lambda: "step" in driver.checkpoints()[-1], "a checkpoint inside it")
        again = hold.at("ffsd", epoch=2, anew=True)
        kill(cluster, busy(nodes)[0])
        driver.wait_for(again, "workers that go on")
        hold.release()
        driver.completed()
    assert_ends_as_undisturbed(job)


@pytest.mark.slow
def test_a_node_is_announced_to_go(job: Path, hold: Hold, cluster: Cluster) -> None:
    announce_one(job, hold, cluster, nodes=3)
    assert_ends_as_undisturbed(job)


@pytest.mark.slow
def test_the_node_of_a_trial_in_tunes_own_process_is_announced_to_go(job: Path, hold: Hold, cluster: Cluster) -> None:
    """It costs the trial none of its retries."""
    alone = ["--set", "scale.workers=1", "--set", "scale.launcher=trial", "--set", "failures.max_retries=0"]
    announce_one(job, hold, cluster, *alone, nodes=2)
    assert_ends_as_undisturbed(job)


def announce_one(job: Path, hold: Hold, cluster: Cluster, *settings: str, nodes: int) -> None:
    """A node is to go, in the middle of an epoch: a checkpoint, and another node."""
    added = [add_node(cluster) for _ in range(nodes)]
    held = hold.at("ffsd", epoch=2, slowly=True)
    with Driver(job, cluster.address, *settings) as driver:
        driver.wait_for(held, "the second epoch")
        again = hold.at("ffsd", epoch=2, slowly=True, anew=True)
        announced = busy(added)[0]
        drain(cluster, announced, seconds=600)
        driver.wait_for(lambda: "step" in driver.checkpoints()[-1], "a checkpoint inside the second epoch")
        assert re.fullmatch(r"epoch-000002-step-000\d\d\d\.pt", driver.checkpoints()[-1])
        driver.wait_for(again, "workers that go on")
        kill(cluster, announced)
        hold.release()
        driver.completed()


@pytest.mark.slow
def test_the_head_goes_and_comes_back(job: Path, hold: Hold) -> None:
    held = hold.at("ffsd", epoch=2, slowly=True)
    with head() as cluster:
        for _ in range(2):
            add_node(cluster)
        driver = Driver(job, cluster.address, "--set", "train.checkpoint_steps=20")
        driver.wait_for(held, "the second epoch")
        driver.wait_for(lambda: "step" in driver.checkpoints()[-1], "a checkpoint inside it")
        address = cluster.address
    output, _ = driver.process.communicate()
    hold.release()
    assert driver.process.returncode == 1, output
    said = rf"^the head of the Ray cluster, {re.escape(address)}, has not answered for \d+ s,"
    assert re.search(said, output, re.M), output
    assert "the same command with --resume goes on from the last checkpoints" in output
    assert "Traceback" not in output
    assert "The program will terminate" not in output, "Ray's own end of it"
    with head() as cluster:
        for _ in range(2):
            add_node(cluster)
        with Driver(job, cluster.address, "--set", "train.checkpoint_steps=20", "--resume") as driver:
            driver.completed()
    assert_ends_as_undisturbed(job)


@pytest.mark.slow
def test_an_elastic_trial_loses_a_node_and_gets_another(tmp_path: Path, hold: Hold, cluster: Cluster) -> None:
    job = written(tmp_path, ELASTIC)
    nodes = [add_node(cluster) for _ in range(2)]
    held = hold.at("ffsd", epoch=2)
    with Driver(job, cluster.address) as driver:
        driver.wait_for(held, "the second epoch")
        smaller = hold.at("ffsd", epoch=4, anew=True)
        kill(cluster, nodes[0])
        driver.wait_for(smaller, "an epoch with one worker, and the next")
        assert driver.history()[-1]["workers"] == 1
        larger = hold.at("ffsd", epoch=4, slowly=True, anew=True)
        add_node(cluster)
        driver.wait_for(larger, "more workers")
        hold.release()
        driver.completed()
    [records] = trials(job).values()
    workers = [row["workers"] for row in records.history()]
    assert [count for count, _ in groupby(workers)] == [2, 1, 2], workers
    whole = undisturbed(records, tmp_path / "whole")
    assert {row["workers"] for row in whole.history()} == {2}
    for row, other in zip(records.history(), whole.history(), strict=True):
        terms = [key for key in row if key.startswith("term/")]
        assert len({row[key] for key in terms}) > 3, "losses, not constants"
        worst = max(abs(row[key] - other[key]) / abs(other[key]) for key in terms if other[key])
        print(f"epoch {row['epoch']}, {row['workers']} workers: {worst:.1e}")
        assert worst < 1e-3


def assert_ends_as_undisturbed(job: Path) -> None:
    """Bit for bit, as the same trial that is trained without Ray."""
    [records] = trials(job).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


def busy(nodes: list[Node]) -> list[Node]:
    """Those of the nodes on which a worker trains."""
    return [node for node in nodes if workers(node)]


def workers(node: Node) -> list[psutil.Process]:
    below = psutil.Process(raylet(node)).children(recursive=True)
    trains = re.compile("RayTrainWorker|ImplicitFunc")  # of Ray Train, or Tune's own
    return [process for process in below if trains.search(" ".join(process.cmdline()))]


def raylet(node: Node) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def drain(cluster: Cluster, node: Node, seconds: int) -> None:
    """As `cluster/drain_on_notice.py` does."""
    script = Path(sys.executable).with_name("ray")
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    deadline = ["--deadline-remaining-seconds", str(seconds)]
    where = ["--address", cluster.address, "--node-id", node.node_id]
    subprocess.run([script, "drain-node", *where, *reason, *deadline], check=True, capture_output=True)
