"""A group in a training loop of one's own."""

from typing import Any

import pytest
import torch

import ffsd_ray
from ffsd_ray.data.batches import Batch
from ffsd_ray.errors import JobError
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.step import Step

from helpers.specs import digits_spec

SMALL: dict[str, Any] = {"backbone": "resnet8", "classes": 10, "image_size": 12}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 12, 12, generator=generator), torch.arange(16) % 10


@pytest.mark.parametrize("method", ["ffsd", "kdcl", "afd"])
def test_a_step_is_a_trials(method: str) -> None:
    """Bit for bit, in every phase."""
    images, labels = batch()
    own = ffsd_ray.build(method, **SMALL, seed=3)
    spec = digits_spec({"name": method}, seed=3)
    trial = build_method(spec, 10, 12)
    trained = own.step(images, labels, own.optimisers(lr=spec.train.lr))
    expected = Step(trial, optimisers.build(trial, spec.train))(Batch([images] * trial.views, labels, 1.0))
    assert all(torch.equal(term, expected.terms[name]) for name, term in trained.terms.items())
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(own.method.parameters(), trial.parameters(), strict=True)
    )


def test_phases_are_named() -> None:
    group = ffsd_ray.build("afd", **SMALL)
    with pytest.raises(ValueError, match=r"phases .*: name one, or call step"):
        group(*batch())
    first = group.method.phases[0].name
    assert group(*batch(), phase=first).total.requires_grad


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "fsd"}, "no method fsd; expected one of .*ffsd"),
        ({"students": 0}, "students"),
        ({"studnets": 2}, "studnets"),
        ({"backbone": "resnet9"}, "Should be one of resnet8"),
        ({"backbone": "vgg-16"}, "vgg-16 on 12×12"),
        ({"method": "kd"}, "learns from networks that are trained before"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        ffsd_ray.build(**({"method": "ffsd"} | SMALL | arguments))


def test_settings_of_optimisers_are_checked() -> None:
    with pytest.raises(JobError, match="lr"):
        ffsd_ray.build("baseline", **SMALL).optimisers(lr=-1)
