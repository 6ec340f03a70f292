"""Ways of executing a step: each computes what the eager one does."""

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.config.optimisation import resolve_execution
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import Method
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.execution import Executor

from helpers.specs import digits_spec


def trained(spec: TrialSpec, steps: int, *, asked: str) -> tuple[Method, list[float], Executor]:
    """The group, the sum of its terms at every step, and what executed them."""
    dataset = data.load(spec.data)
    train = spec.train.model_copy(update={"execution": asked})
    spec = spec.model_copy(update={"train": train})
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    method.to(memory_format=torch.channels_last)
    batches = train_batches(spec, dataset, views=method.views)
    built = optimisers.build(method, spec.train)
    executor = Executor(method, method, built, batches, train.execution)
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
