"""What happens when nodes go, are announced to go, come back, or the head does: on real clusters of several nodes.

A worker that is killed: test_run.py; a driver that is: test_launchers.py.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import psutil
import pytest
from ray._private.node import Node
from ray.cluster_utils import Cluster
from safetensors.torch import load

from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import LEADER_BEST, LEADER_LAST, Row, TrialRecords

from test_run import command, run, trials, wait_for
from test_trainer import assert_equal, measured

pytestmark = pytest.mark.ray

JOB = """\
name: small
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 2, batch_size: 6, lr: 0.02, steps_per_epoch: 200}
scale: {threads: 1, workers: 2}
records: {reuse: false}
"""
ELASTIC = """\
name: small
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 14, batch_size: 32, lr: 0.001}
scale: {threads: 1, workers: {min: 1, max: 2}}
records: {reuse: false}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return written(tmp_path, JOB)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrialRecords:
    path = written(tmp_path_factory.mktemp("undisturbed"), JOB)
    done = run(path)
    assert done.returncode == 0, done.stdout + done.stderr
    [records] = trials(path).values()
    return records


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that trains nothing."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
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
    return cluster.add_node(num_cpus=1, object_store_memory=10**8)


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
            self.process.communicate(timeout=100)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        def seen() -> object:
            assert self.process.poll() is None, self.process.communicate()[0]
            return condition()

        wait_for(seen, what, 240)

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self._runs.glob("*/checkpoints/epoch-*.pt"))

    def history(self) -> list[Row]:
        return [row for folder in self._runs.glob("*") for row in TrialRecords(Store(str(folder))).history()]

    def begun_since(self, moment: float) -> bool:
        """Whether workers have begun to train since then: the first thing that they do is to say where."""
        return any(path.stat().st_mtime > moment for path in self._runs.glob("*/environment.json"))

    def recovered(self, moment: float) -> None:
        self.wait_for(lambda: self.begun_since(moment), "workers that go on")
        print(f"trains again {time.time() - moment:.0f} s later, from {self.checkpoints()[-1]}")

    def completed(self) -> None:
        output, _ = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, output


@pytest.mark.slow
def test_a_node_goes(job: Path, cluster: Cluster, undisturbed: TrialRecords) -> None:
    nodes = [add_node(cluster) for _ in range(3)]
    with Driver(job, cluster.address, "--set", "train.checkpoint_steps=20") as driver:
        driver.wait_for(lambda: "epoch-000002-step" in "".join(driver.checkpoints()), "the second epoch")
        moment = time.time()
        kill(cluster, busy(nodes)[0])
        driver.recovered(moment)
        driver.completed()
    assert_ends_as(job, undisturbed)


def test_a_node_is_announced_to_go(job: Path, cluster: Cluster, undisturbed: TrialRecords) -> None:
    announce_one(job, cluster, nodes=3)
    assert_ends_as(job, undisturbed)


def test_the_node_of_a_trial_in_tunes_own_process_is_announced_to_go(job: Path, cluster: Cluster) -> None:
    """It costs the trial none of its retries."""
    alone = ["--set", "scale.workers=1", "--set", "scale.launcher=trial", "--set", "failures.max_retries=0"]
    announce_one(job, cluster, *alone, nodes=2)
    whole = run(job, *alone, "--set", "name=whole", "--set", "context=local")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    [undisturbed] = trials(job, "whole").values()
    assert_ends_as(job, undisturbed)


def announce_one(job: Path, cluster: Cluster, *settings: str, nodes: int) -> None:
    """A node is to go in 12 s, in the middle of an epoch: a checkpoint, and another node."""
    added = [add_node(cluster) for _ in range(nodes)]
    with Driver(job, cluster.address, *settings) as driver:
        driver.wait_for(driver.history, "the first epoch")
        moment = time.time()
        announced = busy(added)[0]
        drain(cluster, announced, seconds=12)
        driver.wait_for(lambda: "step" in driver.checkpoints()[-1], "a checkpoint inside the second epoch")
        assert time.time() < moment + 12, "inside the notice"
        assert re.fullmatch(r"epoch-000002-step-000\d\d\d\.pt", driver.checkpoints()[-1])
        print(f"checkpoint {time.time() - moment:.0f} s after the notice")
        driver.recovered(moment)
        kill(cluster, announced)
        driver.completed()


@pytest.mark.slow
def test_the_head_goes_and_comes_back(job: Path, undisturbed: TrialRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with head() as cluster:
        for _ in range(2):
            add_node(cluster)
        driver = Driver(job, cluster.address, "--set", "train.checkpoint_steps=20")
        driver.wait_for(lambda: "epoch-000002-step" in "".join(driver.checkpoints()), "the second epoch")
        address, moment = cluster.address, time.time()
    output, _ = driver.process.communicate(timeout=300)
    print(f"the driver ended {time.time() - moment:.0f} s later")
    assert driver.process.returncode == 1, output
    said = rf"^the head of the Ray cluster, {re.escape(address)}, has not answered for \d+ s,"
    assert re.search(said, output, re.M), output
    assert "the same command with --resume goes on from the last checkpoints" in output
    assert "Traceback" not in output
    assert "The program will terminate" not in output, "Ray's own end of it"
    with head() as cluster:
        for _ in range(2):
            add_node(cluster)
        moment = time.time()
        with Driver(job, cluster.address, "--resume") as driver:
            driver.recovered(moment)
            driver.completed()
    assert_ends_as(job, undisturbed)


@pytest.mark.slow
def test_an_elastic_trial_loses_a_node_and_gets_another(tmp_path: Path, cluster: Cluster) -> None:
    job = written(tmp_path, ELASTIC)
    nodes = [add_node(cluster) for _ in range(2)]
    with Driver(job, cluster.address) as driver:
        driver.wait_for(driver.history, "the first epoch")
        moment = time.time()
        kill(cluster, nodes[0])
        driver.recovered(moment)
        driver.wait_for(lambda: driver.history()[-1]["workers"] == 1, "an epoch with one worker")
        add_node(cluster)
        moment = time.time()
        driver.recovered(moment)
        assert time.time() < moment + 90
        driver.completed()
    [records] = trials(job).values()
    workers = [row["workers"] for row in records.history()]
    assert [count for count, _ in groupby(workers)] == [2, 1, 2], workers
    whole = run(job, "--set", "name=whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    [undisturbed] = trials(job, "whole").values()
    assert {row["workers"] for row in undisturbed.history()} == {2}
    assert [row["seconds"] for row in undisturbed.history()] != [row["seconds"] for row in records.history()]
    for row, other in zip(records.history(), undisturbed.history(), strict=True):
        terms = [key for key in row if key.startswith("term/")]
        assert len({row[key] for key in terms}) > 3, "losses, not constants"
        worst = max(abs(row[key] - other[key]) / abs(other[key]) for key in terms if other[key])
        print(f"epoch {row['epoch']}, {row['workers']} workers: {worst:.1e}")
        assert worst < 1e-3


def assert_ends_as(job: Path, undisturbed: TrialRecords) -> None:
    """Bit for bit, but for the cards of the exported weights, which tell `train.checkpoint_steps`."""
    [records] = trials(job).values()
    assert_equal(records.latest_checkpoint(), undisturbed.latest_checkpoint())
    assert measured(records.history()) == measured(undisturbed.history())
    for name in (LEADER_BEST, LEADER_LAST):
        assert_equal(load(records.store.read(name)), load(undisturbed.store.read(name)))


def busy(nodes: list[Node]) -> list[Node]:
    """Those of the nodes on which a worker trains."""
    return [node for node in nodes if workers(node)]


def workers(node: Node) -> list[psutil.Process]:
    below = psutil.Process(raylet(node)).children(recursive=True)
    trains = re.compile("RayTrainWorker|ImplicitFunc")  # of Ray Train, or Tune's own
    return [process for process in below if trains.search(" ".join(process.cmdline()))]


def raylet(node: Node) -> int:
    return node.all_processes["raylet"][0].process.pid


def drain(cluster: Cluster, node: Node, seconds: int) -> None:
    """As `cluster/drain_on_notice.py` does."""
    script = Path(sys.executable).with_name("ray")
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    deadline = ["--deadline-remaining-seconds", str(seconds)]
    where = ["--address", cluster.address, "--node-id", node.node_id]
    subprocess.run([script, "drain-node", *where, *reason, *deadline], check=True, capture_output=True)
