"""No step and no evaluation has the host wait for the device, which would keep it from launching ahead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.meters import AccuracyMeter

from helpers.device_watch import watch_device
from helpers.forms import ADDED, FORMS
from helpers.specs import digits_spec
from helpers.tiers import often

METHODS_AND_FORMS = FORMS | ADDED | {"baseline": {"name": "baseline"}, "ffsd": {"name": "ffsd"}}

WAITING: dict[str, Callable[[Tensor], object]] = {
    "list as index": lambda x: x[[0, 1]],
    "list in an index": lambda x: x[:, [0, 1]],
    "index of the host": lambda x: x[torch.tensor([0, 1])],
    "list as index of what is set": lambda x: x.__setitem__([0, 1], 0.0),
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "truth": lambda x: bool(x.sum() > 0),
    "to the host": lambda x: x.cpu(),
    "to the device": lambda x: torch.ones(3).to(x.device),
    "values to the device": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "number to the device": lambda x: x.new_tensor(1.0),
    "copied": lambda x: x.copy_(torch.ones(3, 3)),
    "mixed": lambda x: x + torch.ones(3),
    "mask": lambda x: x[x > 0],
}


@pytest.mark.parametrize("how", WAITING)
def test_waiting_is_noticed(how: str) -> None:
    x = torch.empty(3, 3, device="meta")
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), watch_device():
        WAITING[how](x)


def test_what_does_not_wait_may_be_done() -> None:
    x = torch.empty(3, 3, device="meta")
    with watch_device():
        x[1:, 0] += torch.full((), 2.0) * torch.arange(2, device="meta")
        torch.stack([x[torch.zeros(3, dtype=torch.long, device="meta")], x * 2]).argmax(dim=0)


@pytest.mark.parametrize("form", often(("ffsd",), METHODS_AND_FORMS))
def test_neither_steps_nor_evaluations_wait(form: str) -> None:
    spec = digits_spec(
        METHODS_AND_FORMS[form],
        backbone="resnet8",
        data={"test_per_class": 3},
        batch_size=16,
        eval_batch_size=20,
        ema=0.9,
    )
    check(spec)


@pytest.mark.thorough
def test_nothing_that_is_drawn_for_an_image_waits() -> None:
    drawn: dict[str, Any] = {"label_smoothing": 0.1, "mixup": 0.3, "cutmix": 1.0, "random_erasing": 0.5}
    drawn["augment"] = "trivial"
    check(digits_spec({"name": "ffsd"}, data={"test_per_class": 3}, batch_size=16, eval_batch_size=20, **drawn))


def check(spec: TrialSpec) -> None:
    """Train and evaluate, watched."""
    engine = Engine(spec, data.load(spec.data), torch.device("meta"))
    engine.begin(1)
    steps = engine.epoch(1, engine.meters())
    next(steps)  # before it the epoch's order goes to the device
    with watch_device():
        assert list(steps) == [2, 3]
    engine.method.eval()
    members, common = engine.method.members, engine.method.common
    accuracy = AccuracyMeter(members, common, 10, torch.device("meta"), confusion=True)  # its constants go there
    with torch.inference_mode(), watch_device():
        for images, labels in engine.evaluations["test"]:
            accuracy.update(engine.executor.predict(images), labels)
