"""Ways of executing a step: each computes what the eager one does."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.config.optimisation import resolve_execution
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import TrialError
from ffsd_ray.methods import Method
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.cuda_graph import WARM_UP, Replay
from ffsd_ray.train.execution import Executor

from helpers.specs import digits_spec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(
    spec: TrialSpec, steps: int, *, asked: str, device: str = "cpu", member_streams: bool = False
) -> tuple[Method, list[float], Executor]:
    """The group, the sum of its terms at every step, and what executed them."""
    dataset = data.load(spec.data)
    train = spec.train.model_copy(update={"execution": asked})
    spec = spec.model_copy(update={"train": train})
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    method.to(device).to(memory_format=torch.channels_last)
    batches = train_batches(spec, dataset, device, views=method.views)
    built = optimisers.build(method, spec.train)
    executor = Executor(method, method, built, batches, train.execution, member_streams=member_streams)
    method.begin_epoch(1)
    totals = []
    for index, batch in zip(range(steps), batches.inputs(1), strict=False):
        built.set_learning_rates(optimisers.learning_rate_factor(spec.train, 1, index, batches.steps))
        [(losses, _)] = executor.train([batch])
        totals.append(torch.stack(list(losses.terms.values())).sum().item())
    return method, totals, executor


@pytest.mark.slow
def test_compiled_steps_are_eager_steps() -> None:
    """Slow: compiling takes minutes."""
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)
    eager, compiled = (trained(spec, 23, asked=asked) for asked in ("eager", "compiled"))
    assert compiled[1][:2] == pytest.approx(eager[1][:2], rel=1e-4)
    assert len(compiled[1]) == len(eager[1])


def test_auto() -> None:
    assert resolve_execution("auto", cuda=False, one_worker=True) == "eager"
    assert resolve_execution("auto", cuda=True, one_worker=True) == "graph"
    assert resolve_execution("auto", cuda=True, one_worker=False) == "eager"
    assert resolve_execution("compiled", cuda=True, one_worker=False) == "compiled"


def test_resolved_execution_is_part_of_the_identity() -> None:
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)

    def identity(execution: str) -> str:
        return spec.model_copy(update={"train": spec.train.model_copy(update={"execution": execution})}).identity()

    assert identity("auto") == identity("eager")
    assert identity("compiled") != identity("eager")


@needs_gpu
@pytest.mark.parametrize("member_streams", [False, True])
def test_captured_steps_are_eager_steps(member_streams: bool) -> None:
    """Beyond the warm-up, over a change of the λs' warm-up and with a last partial batch."""
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)
    eager = trained(spec, 30, asked="eager", device="cuda")
    captured = trained(spec, 30, asked="graph", device="cuda", member_streams=member_streams)
    assert captured[2].captured
    assert len(captured[1]) > WARM_UP
    assert captured[1][:2] == pytest.approx(eager[1][:2], rel=1e-3)
    assert captured[1] == pytest.approx(eager[1], rel=0.2)  # training lets rounding grow


def _fail_to_capture() -> str:
    replay = Replay(lambda x: x * x.sum().item())
    for _ in range(WARM_UP):
        assert replay(torch.full((2,), 3.0, device="cuda")).tolist() == [18.0, 18.0]
    with pytest.raises(TrialError) as failed:
        replay(torch.full((2,), 3.0, device="cuda"))
    return str(failed.value)


@needs_gpu
def test_what_cannot_be_captured_ends_the_trial() -> None:
    """In a process of its own: a failed capture leaves torch's allocator and random generator in doubt."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert "train.execution: eager" in pool.submit(_fail_to_capture).result()
