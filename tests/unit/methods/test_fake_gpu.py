"""Every method on a GPU of which there are only its tensors' shapes and types. A backward pass needs a real one."""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ffsd_ray.nets.precision import Precision
from ffsd_ray.train.build import build_method
from ffsd_ray.train.meters import AccuracyMeter, Meters, TermMeter

from helpers.forms import ADDED, CLASSES, EPOCH, FORMS
from helpers.specs import digits_spec
from helpers.tiers import often

METHODS_AND_FORMS = FORMS | ADDED | {"baseline": {"name": "baseline"}, "ffsd": {"name": "ffsd"}}
CUDA = torch.device("cuda")


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New tensors are on it."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    with FakeTensorMode(allow_non_fake_inputs=True), CUDA:
        yield


@pytest.mark.parametrize("precision", often(("bf16",), ("fp32", "bf16"), others="slow"))
@pytest.mark.parametrize("form", often(("ffsd",), METHODS_AND_FORMS))
def test_everything_stays_on_the_gpu(form: str, precision: Precision, fake_gpu: None) -> None:
    """Losses and logits are in float32, whatever the networks compute in."""
    spec = digits_spec(METHODS_AND_FORMS[form], backbone="resnet8", precision=precision)
    method = build_method(spec, CLASSES, 12)
    method.begin_epoch(EPOCH)
    images = torch.randn(8, 3, 12, 12).to(memory_format=torch.channels_last)
    views, labels = [images] * method.views, torch.zeros(8, dtype=torch.long)
    meters = Meters(TermMeter(CUDA), AccuracyMeter(method.members, method.common, CLASSES, CUDA))
    for step, phase in enumerate(method.phases):
        losses = method(views, labels, phase.name)
        for tensor in (*losses.terms.values(), *losses.logits.values()):
            assert (tensor.device.type, tensor.dtype) == ("cuda", torch.float32)
        if losses.logits:
            meters.update(losses, labels, step)
    method.eval()
    with torch.inference_mode():
        for logits in method.predict(images).values():
            assert (logits.device.type, logits.dtype) == ("cuda", torch.float32)
