"""Ways of executing a step: each computes what the eager one does."""

import copy
import logging

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.backbones import BACKBONES
from ffsd_ray.methods import Method
from ffsd_ray.nets.grouped import forward_grouped
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.execution import Executor, resolve
from ffsd_ray.train.replay import WARM_UP, Replay

from specs import digits_spec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(spec: TrialSpec, steps: int, *, asked: str, device: str = "cpu") -> tuple[Method, list[float], Executor]:
    """The group, the sum of its terms at every step, and what executed them."""
    dataset = data.load(spec.data)
    train = spec.train.model_copy(update={"execution": asked})
    spec = spec.model_copy(update={"train": train})
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    method.to(device).to(memory_format=torch.channels_last)
    batches = train_batches(spec, dataset, device, views=method.views)
    built = optimisers.build(method, spec.train)
    executor = Executor(method, method, built, batches, train.execution)
    method.begin_epoch(1)
    totals = []
    for index, batch in zip(range(steps), batches.drawn(1), strict=False):
        built.set_learning_rates(optimisers.learning_rate_factor(spec.train, 1, index, batches.steps))
        [(losses, _)] = executor.train([batch])
        totals.append(torch.stack(list(losses.terms.values())).sum().item())
    return method, totals, executor


@pytest.mark.parametrize("backbone", ["resnet20", "wrn-16-2", "densenet-40-12"])
def test_grouped_networks_are_the_networks(backbone: str) -> None:
    torch.manual_seed(0)
    together = [BACKBONES[backbone](10).double() for _ in range(3)]
    apart = copy.deepcopy(together)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for grouped, alone in zip(forward_grouped(together, images), [network(images) for network in apart], strict=True):
        torch.testing.assert_close(grouped.logits, alone.logits)
        for one, other in zip(grouped.maps, alone.maps, strict=True):
            torch.testing.assert_close(one, other)
        (grouped.logits.square().sum() + grouped.maps[0].sum()).backward(retain_graph=True)
        (alone.logits.square().sum() + alone.maps[0].sum()).backward()
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(
            {name: parameter.grad for name, parameter in one.named_parameters()},
            {name: parameter.grad for name, parameter in other.named_parameters()},
            rtol=1e-6,
            atol=1e-9,
        )
        torch.testing.assert_close(dict(one.named_buffers()), dict(other.named_buffers()))


@pytest.mark.parametrize("method", [{"name": "ffsd", "students": 3}, {"name": "dml", "students": 3}])
def test_grouped_steps_are_eager_steps(method: dict) -> None:
    spec = digits_spec(method, steps_per_epoch=40)
    (eager, expected, _), (grouped, found, _) = (trained(spec, 1, asked=asked) for asked in ("eager", "grouped"))
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(grouped.state_dict(), eager.state_dict(), rtol=1e-5, atol=1e-5)
    probe = torch.randn(8, 3, spec.data.known_size, spec.data.known_size)
    predictions = grouped.eval().predict(probe), eager.eval().predict(probe)
    torch.testing.assert_close(*predictions, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_compiled_steps_are_eager_steps() -> None:
    """Slow: compiling takes minutes."""
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)
    eager, compiled = (trained(spec, 23, asked=asked) for asked in ("eager", "compiled"))
    assert compiled[1][:2] == pytest.approx(eager[1][:2], rel=1e-4)
    assert len(compiled[1]) == len(eager[1])


def test_auto() -> None:
    assert resolve("auto", cuda=False, workers=1) == "eager"
    assert resolve("auto", cuda=True, workers=1) == "graph"
    assert resolve("auto", cuda=True, workers=2) == "eager"
    assert resolve("grouped", cuda=True, workers=2) == "grouped"


def test_resolved_execution_is_part_of_the_identity() -> None:
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)

    def identity(execution: str) -> str:
        return spec.model_copy(update={"train": spec.train.model_copy(update={"execution": execution})}).identity()

    assert identity("auto") == identity("eager")
    assert identity("grouped") != identity("eager")


@needs_gpu
@pytest.mark.parametrize("asked", ["graph", "grouped"])
def test_captured_steps_are_eager_steps(asked: str) -> None:
    """Beyond the warm-up, over a change of the λs' warm-up and with a last partial batch."""
    spec = digits_spec({"name": "ffsd"}, steps_per_epoch=None)
    eager = trained(spec, 30, asked="eager", device="cuda")
    captured = trained(spec, 30, asked=asked, device="cuda")
    assert captured[2].captured
    assert len(captured[1]) > WARM_UP
    assert captured[1][:2] == pytest.approx(eager[1][:2], rel=1e-3)
    assert captured[1] == pytest.approx(eager[1], rel=0.2)  # training lets rounding grow


@needs_gpu
def test_what_cannot_be_captured_stays_plain(caplog: pytest.LogCaptureFixture) -> None:
    replay = Replay(lambda x: x * x.sum().item(), required=False)
    with caplog.at_level(logging.WARNING):
        results = [replay(torch.full((2,), 3.0, device="cuda")) for _ in range(WARM_UP + 2)]
    assert all(result.tolist() == [18.0, 18.0] for result in results)
    assert not replay.capturing
    assert "not captured" in caplog.text
