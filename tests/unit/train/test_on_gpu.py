"""What is promised of trainings on a GPU. Skipped where there is none: run these first on a new kind of GPU."""

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import TrialError
from ffsd_ray.train.cuda_graph import WARM_UP, Replay
from ffsd_ray.train.engine import Engine

from helpers.captured import FORMS, graph_spec
from helpers.comparison import assert_same_end, assert_same_training
from helpers.workers import train_with

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def gpu_spec(form: str, **train: object) -> TrialSpec:
    spec = graph_spec(form)
    scale = spec.scale.changed(gpus_per_worker=1)
    return spec.changed(scale=scale, train=spec.train.model_dump() | {"execution": "eager", **train})


@pytest.mark.parametrize(("form", "precision"), [*product(FORMS, ("fp32", "bf16")), ("ffsd", "tf32")])
def test_graphs_and_streams_leave_every_bit_as_it_is(form: str, precision: str, tmp_path: Path) -> None:
    """As do two trainings of the same trial."""
    eager = train_with(gpu_spec(form, precision=precision), tmp_path / "eager")
    assert_same_end(eager, train_with(gpu_spec(form, precision=precision), tmp_path / "again"))
    for streams in (False, True):
        spec = gpu_spec(form, precision=precision, execution="graph", member_streams=streams)
        captured = train_with(spec, tmp_path / f"streams {streams}")
        assert captured.result()["execution"] == {"as": "graph", "captured": True}
        assert_same_training(eager, captured)


@pytest.mark.parametrize("execution", ["eager", "graph"])
@pytest.mark.parametrize("form", FORMS)
def test_no_step_waits_for_the_gpu(form: str, execution: str) -> None:
    """Once an epoch's first batch is there; where one waits, torch names the line."""
    spec = gpu_spec(form, precision="bf16", execution=execution)
    engine = Engine(spec, data.load(spec.data), torch.device("cuda"))
    for epoch in (1, 2, 3):
        engine.begin(epoch)
        meters = engine.meters()
        steps = engine.epoch(epoch, meters)
        next(steps)
        torch.cuda.set_sync_debug_mode("error" if epoch == 3 else "default")
        try:
            deque(steps, maxlen=0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        meters.read(epoch)
        engine.end_epoch(evaluate=True)
    assert engine.executor.captured == (execution == "graph")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_resumed_on_a_gpu_is_never_stopped(precision: str, tmp_path: Path) -> None:
    spec = gpu_spec("ffsd", precision=precision, execution="graph")
    whole = train_with(spec, tmp_path / "whole")
    assert train_with(spec, tmp_path / "stopped", stop_after=2).state() == "unfinished"
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))


def _fail_to_capture() -> str:
    replay = Replay(lambda x: x * x.sum().item())
    for _ in range(WARM_UP):
        assert replay(torch.full((2,), 3.0, device="cuda")).tolist() == [18.0, 18.0]
    with pytest.raises(TrialError) as failed:
        replay(torch.full((2,), 3.0, device="cuda"))
    return str(failed.value)


def test_what_cannot_be_captured_ends_the_trial() -> None:
    """In a process of its own: a failed capture leaves torch's allocator and random generator in doubt."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert "train.execution: eager" in pool.submit(_fail_to_capture).result()
