"""What a run chooses where its job leaves GPUs and CPUs open, and what it says of idle parts of this machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ffsd_ray import job_resources
from ffsd_ray.config.load import Plan
from ffsd_ray.job_resources import idle_parts, with_resources
from ffsd_ray.launch.cluster import connection
from ffsd_ray.launch.cluster.capacity import NO_AUTOSCALER, AutoscalerLimits, NodeType, Resources
from ffsd_ray.launch.cluster.connection import Cluster
from ffsd_ray.records.run import RunRecords

from helpers.plans import LoadJob
from helpers.small_run import again

BASE = {"name": "j", "data": "digits", "backbone": "resnet8", "method": "ffsd", "seed": [0, 1]}
#: A job that trains in a moment.
SMALL = """
name: small
context: local
data: {name: digits, image_size: 8, train_per_class: 2, test_per_class: 2}
backbone: resnet8
method: baseline
train: {epochs: 1, batch_size: 8, steps_per_epoch: 1}
"""
HEAD = {"CPU": 8.0, "node:__internal_head__": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0}
#: Two nodes of a GPU at most.
GPUS = AutoscalerLimits([NodeType("gpu", GPU_NODE, 2)], 2)


@pytest.fixture
def load(tmp_path: Path) -> LoadJob:
    return LoadJob(tmp_path, BASE)


class Machine:
    """What this machine is made to have, and where trials run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def has(self, *, cpus: int = 2, gpus: int = 0) -> None:
        """Trials run here."""
        self._patch.delenv("RAY_ADDRESS", raising=False)
        self._patch.delenv("OMP_NUM_THREADS", raising=False)
        self._patch.setattr(job_resources, "_cpus", lambda: cpus)
        self._patch.setattr(torch.cuda, "device_count", lambda: gpus)

    def names_cluster(self, nodes: Sequence[Resources], limits: AutoscalerLimits | None) -> None:
        """Trials run on a cluster of these nodes."""

        @contextmanager
        def connected(trials: object, *, verbose: bool) -> Iterator[Cluster]:
            yield Cluster(limits, 0)

        self._patch.setenv("RAY_ADDRESS", "elsewhere:6379")
        self._patch.setattr(connection, "connected", connected)
        self._patch.setattr(Cluster, "nodes", lambda self: nodes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def chosen(plan: Plan) -> set[tuple[Any, int]]:
    """GPUs and threads of a worker of each trial; nothing is left open, and the job says the same."""
    assert not any(trial.scale.left_open for trial in plan.trials)
    return {(trial.scale.gpus_per_worker, trial.scale.worker_threads) for trial in plan.trials}


@pytest.mark.parametrize(
    ("nodes", "limits", "scale", "gpus", "reason"),
    [
        ([HEAD], NO_AUTOSCALER, {}, 0, "the cluster has no GPU"),
        ([HEAD, GPU_NODE], NO_AUTOSCALER, {}, 1, "the cluster has GPUs"),
        ([HEAD], GPUS, {"workers": 2}, 1, "the cluster has GPUs"),
        ([HEAD], GPUS, {"workers": 3}, 0, "GPUs, which stand idle: it cannot hold 3 workers of 1 CPU, 1 GPU each"),
        ([HEAD], GPUS, {"workers": {"min": 2, "max": 3}}, 1, "the cluster has GPUs"),
        ([HEAD], GPUS, {"cpus_per_worker": 9}, 0, "it cannot hold 9 CPUs, 1 GPU;"),
        ([HEAD], None, {}, 0, "the cluster has no GPU"),
        ([HEAD, GPU_NODE], None, {}, 1, "the cluster has GPUs"),
    ],
)
def test_a_gpu_a_worker_where_the_cluster_can_hold_it(
    nodes: list[Resources],
    limits: AutoscalerLimits | None,
    scale: dict[str, Any],
    gpus: int,
    reason: str,
    load: LoadJob,
    machine: Machine,
) -> None:
    """Now, or once its autoscaler has started what it may; None: its limits cannot be read."""
    machine.has(cpus=64)
    machine.names_cluster(nodes, limits)
    plan, lines = with_resources(load(scale=scale))
    assert {trial.scale.gpus_per_worker for trial in plan.trials} == {gpus}
    assert plan.job.scale.gpus_per_worker == gpus
    assert lines[0].startswith(f"Chosen, as the job does not say it: scale.gpus_per_worker: {gpus} (")
    assert reason in lines[0]
    # a cluster's CPUs are not shared out
    assert {trial.scale.cpus for trial in plan.trials} == {scale.get("cpus_per_worker", 1)}


@pytest.mark.parametrize(
    ("cpus", "gpus", "sections", "each"),
    [
        (16, 0, {}, {(0, 8)}),
        (16, 0, {"seed": [0, 1, 2]}, {(0, 5)}),
        (16, 0, {"seed": list(range(40))}, {(0, 1)}),
        (16, 0, {"scale": {"workers": 3}}, {(0, 2)}),
        (16, 0, {"seed": [0, 1, 2, 3], "scale": {"trials_at_once": 2}}, {(0, 8)}),
        (16, 0, {"context": "local"}, {(0, 16)}),
        (16, 0, {"method": "kd"}, {(0, 8)}),  # two teachers, then the two that learn from them
        (128, 0, {"seed": 0}, {(0, 16)}),
        (16, 0, {"scale": {"threads": 3}}, {(0, 3)}),
        (16, 0, {"scale": {"cpus_per_worker": 3}}, {(0, 3)}),
        (16, 0, {"scale": {"for_networks": 3}}, {(0, 1)}),
        (16, 2, {}, {(1, 1)}),
        (16, 1, {"context": "local"}, {(1, 1)}),
        (16, 2, {"scale": {"gpus_per_worker": 0}}, {(0, 8)}),
        (16, 1, {"scale": {"workers": 2}}, {(0, 4)}),
        (16, 1, {"scale": {"gpus_per_worker": 0.5}}, {(0.5, 1)}),
        (16, 1, {"scale": {"gpus_per_worker": "auto"}}, {("auto", 1)}),
    ],
)
def test_this_machine(
    cpus: int, gpus: int, sections: dict[str, Any], each: set[tuple[Any, int]], load: LoadJob, machine: Machine
) -> None:
    """Its GPUs, or its CPUs shared out among the trials that run at once; what the job says is obeyed."""
    machine.has(cpus=cpus, gpus=gpus)
    assert chosen(with_resources(load(**sections))[0]) == each


def test_no_more_threads_than_the_environment_allows(
    load: LoadJob, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(cpus=16)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert chosen(with_resources(load())[0]) == {(0, 3)}


def test_trials_are_the_same_only_once_chosen(load: LoadJob, machine: Machine) -> None:
    """One that says 0 GPUs beside one that leaves it open: a trial where there are none, else two."""
    search = {"also": [{"scale": {"gpus_per_worker": 0, "threads": 1}}]}
    for gpus, trials in ((0, 1), (1, 2)):
        machine.has(cpus=1, gpus=gpus)
        plan, _ = with_resources(load(search=search, seed=0))
        assert len({trial.identity() for trial in plan.trials}) == len(plan.trials) == trials


def test_the_dry_run_asks_no_cluster(load: LoadJob, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has()
    monkeypatch.setenv("RAY_ADDRESS", "nobody:6379")
    plan, [line] = with_resources(load(), ask_cluster=False)
    assert plan.trials[0].scale.left_open
    assert "chosen when the run begins" in line
    assert with_resources(load(scale={"gpus_per_worker": 1}), ask_cluster=False)[1] == []


def test_a_run_keeps_what_it_began_with(tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """On another machine, for trials that are new to it too."""
    machine.has(cpus=2)
    (tmp_path / "job.yaml").write_text(SMALL)
    assert again(tmp_path) == 0
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    [first] = run.specs().values()
    assert (run.job()["scale"]["gpus_per_worker"], run.job()["scale"]["cpus_per_worker"]) == (0, 2)
    assert run.trial(first.identity()).environment()["device"]["threads"] == 2
    assert "scale.cpus_per_worker: 2 (this machine's 2, shared out among 1" in capsys.readouterr().out
    machine.has(cpus=16, gpus=1)
    assert again(tmp_path, "--resume", "--set", "seed=[0,1]") == 0
    assert "scale.gpus_per_worker: 0 (as when this run began)" in capsys.readouterr().out
    specs = run.specs()
    assert first.identity() in specs
    assert {(spec.scale.gpus_per_worker, spec.scale.worker_threads) for spec in specs.values()} == {(0, 2)}


@pytest.mark.parametrize(
    ("cores", "gpus", "sections", "said"),
    [
        (16, 0, {"context": "local", "scale": {"threads": 1}}, "16 cores 1 will be at work; scale.threads: 16 uses"),
        (16, 0, {"scale": {"threads": 1}}, "16 cores 2 will be at work; scale.cpus_per_worker: 8 uses all of them."),
        (16, 0, {"scale": {"cpus_per_worker": 8}}, None),
        (2, 0, {"context": "local", "scale": {"threads": 1}}, None),
        (16, 0, {}, None),
        (16, 1, {"scale": {"gpus_per_worker": 0}}, "GPU stands idle; scale.gpus_per_worker: 1 trains on it."),
        (16, 2, {"scale": {"workers": 3}}, "GPU stands idle; scale.gpus_per_worker: 0.6666 trains on it."),
        (16, 1, {"scale": {"gpus_per_worker": 0.5}}, None),
        (16, 1, {}, None),
    ],
)
def test_idle_parts(
    cores: int,
    gpus: int,
    sections: dict[str, Any],
    said: str | None,
    load: LoadJob,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine.has(cpus=cores, gpus=gpus)
    plan, _ = with_resources(load(**sections))
    notes = list(idle_parts(plan))
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert list(idle_parts(plan)) == []
