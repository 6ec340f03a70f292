"""Why a trial failed is told by its own exception, and the other trials go on."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from torch import Tensor

import ffsd_ray
from ffsd_ray.errors import DataAway, StorageError
from ffsd_ray.launch.causes import cause_in, cause_of
from ffsd_ray.launch.worker import _for_ray
from ffsd_ray.methods.baseline import Baseline
from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main
from ffsd_ray.train import local, trainer
from ffsd_ray.train.engine import Engine

from helpers.small_run import local_job
from helpers.tiers import often

JOB = local_job(
    "method: {name: baseline}",
    "train: {epochs: 1, batch_size: 256, steps_per_epoch: 1}",
    "seed: [0, 1, 2]",
)


def test_the_exception_inside_those_of_ray() -> None:
    inner = ValueError("Expected more than 1 value per channel\nwhen training")
    told = "ValueError: Expected more than 1 value per channel"
    task = RayTaskError("f", "Traceback ...\nValueError: other", inner)
    assert cause_of(inner) == told
    assert cause_of(WorkerGroupError("[Rank 1]\nTraceback", {1: RuntimeError("x"), 0: inner})) == told
    assert cause_of(WorkerGroupError("[Rank 1]\nTraceback", {1: task})) == told
    assert cause_of(ControllerError(inner)) == told
    assert cause_of(WorkerGroupError("nobody", {})) == "WorkerGroupError: Training failed due to worker errors:"
    assert cause_of(RayActorError(error_msg="The actor died\n\tclass_name: X")) == "ActorDiedError: The actor died" or (
        cause_of(RayActorError(error_msg="The actor died\n\tclass_name: X")) == "RayActorError: The actor died"
    )
    assert cause_of(MemoryError()) == "MemoryError"
    wrapped = RuntimeError("a traceback")
    wrapped._base_exc = inner  # type: ignore[attr-defined]
    assert cause_of(wrapped) == told
    dead = WorkerHealthCheckFailedError("A worker health check failed.", RayActorError(error_msg="The actor died"))
    assert cause_of(WorkerGroupError("[Rank 0]\nTraceback", {0: dead})).endswith("The actor died")


def test_the_exception_in_a_text() -> None:
    text = (
        "Failure # 1\nray::run_trial() (pid=1)\n  File x, line 3\n    raise KeyError('ValueError: no')\n"
        "KeyError: 'first'\n\nDuring handling ...\n  File y\n"
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n"
        "Memory on the node was 24GB.\nRefer to the documentation on how to address the out of memory issue: https://x\n"
    )
    assert cause_in(text).startswith("ray.exceptions.OutOfMemoryError: Task was killed")
    assert cause_in("the worker ended with exit code 9") == "the worker ended with exit code 9"
    assert cause_in("") == "no reason is known"
    assert OutOfMemoryError.__module__ == "ray.exceptions"


class OfTwo(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RayActorError(error_msg="left", preempted=True)])
def test_ray_gets_an_error_as_it_is(error: Exception) -> None:
    assert _for_ray(error) is error


@pytest.mark.parametrize("error", [SystemExit("given up"), SystemExit(0), StopIteration("given up"), OfTwo("a", "b")])
def test_ray_gets_the_words_of_an_error_that_it_would_misread(error: BaseException) -> None:
    """Of SystemExit it knows nothing but that a process ended, StopIteration counts as success with Tune."""
    handed_on = cloudpickle.loads(cloudpickle.dumps(_for_ray(error)))
    assert cause_of(handed_on) == f"RuntimeError: {type(error).__name__}: {error}"


ERRORS = [
    ValueError("boom\nwith more"),
    MemoryError("no room"),
    AssertionError("boom"),
    RecursionError("too deep"),
    SystemExit("given up"),
    SystemExit(3),
    GeneratorExit("closed"),
    DataAway("away"),
]


@pytest.mark.parametrize("error", often([ERRORS[4]], ERRORS))
def test_the_other_local_trials_go_on(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward, seen = Baseline.forward, []

    def fails_once(self: Baseline, views: list[Tensor], labels: Tensor, phase: str) -> object:
        seen.append(phase)
        if len(seen) == 2:  # the second trial's only step
            raise error
        return forward(self, views, labels, phase)

    monkeypatch.setattr(Baseline, "forward", fails_once)
    (tmp_path / "job.yaml").write_text(JOB)
    assert main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs")]) == 1
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    assert sorted(run.trial(name).state() for name in run.trials()) == ["completed", "completed", "failed"]
    [failed] = [run.trial(name) for name in run.trials() if run.trial(name).state() == "failed"]
    known = isinstance(error, DataAway)
    told = str(error) if known else f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert failed.error()["message"] == told
    assert ("Traceback" in failed.error()["details"]) is not known
    output = capsys.readouterr()
    assert f"{'DataAway' if known else 'TrainingFailed'}: {told}" in " ".join(output.out.split())
    assert "Traceback" not in output.out + output.err


def test_a_network_that_cannot_be_built_ends_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def fails_once(*arguments: Any, **options: Any) -> Engine:
        built.append(arguments)
        if len(built) == 2:
            raise SystemExit("no such device")
        return Engine(*arguments, **options)

    monkeypatch.setattr(trainer, "Engine", fails_once)
    (tmp_path / "job.yaml").write_text(JOB)
    assert main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs")]) == 1
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    assert sorted(run.trial(name).state() for name in run.trials()) == ["completed", "completed", "failed"]


def test_storage_that_fails_ends_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial would only meet it again."""

    def away(*arguments: object, **options: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(local, "train", away)
    (tmp_path / "job.yaml").write_text(JOB)
    assert main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs")]) == 1
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    assert {run.trial(name).state() for name in run.trials()} == {"unfinished"}


def test_one_file_knows_rays_internals() -> None:
    private = (
        "ray._private",
        "ray.autoscaler",
        "ray.tune.execution",
        "ray.tune.experiment",
        "ray.train.v2",
        "ray.util.state",
    )
    found = set()
    for file in Path(ffsd_ray.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            of_ray = [name for name in [module, *names] if name.split(".")[0] == "ray"] or (
                names if module.split(".")[0] == "ray" else []
            )
            hidden = module.startswith(private) or any(name.startswith(("_", *private)) for name in names)
            if of_ray and hidden:
                found.add(file.name)
    assert found == {"ray_internals.py"}


def test_every_worker_knows_the_terms() -> None:
    """Also one whose share of what is left of an epoch is empty."""
    from ffsd_ray.train.meters import TermMeter

    first, second = TermMeter(torch.device("cpu")), TermMeter(torch.device("cpu"))
    first.update({"a/ce": torch.tensor(2.0), "a/kd": torch.tensor(1.0)}, 0, 3)
    state = first.state()
    second.expect(["a/ce", "a/kd"])
    assert second.state()["names"] == state["names"]
    assert second.state()["sums"].tolist() == [0, 0]
    resumed = TermMeter(torch.device("cpu"))
    resumed.load(state)
    assert resumed.read(1) == first.read(1) == {"term/a/ce": 2.0, "term/a/kd": 1.0}
