"""Every method in a small form, for tests over all of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import METHODS, Method
from ffsd_ray.methods.one import One
from ffsd_ray.train.build import build_method

from helpers.specs import digits_spec

#: Every method that the paper compares with, in every form, as `method` sections.
FORMS: dict[str, dict[str, Any]] = {
    "kd": {"name": "kd"},
    "at": {"name": "at", "teacher": "wrn-16-2"},
    "dml": {"name": "dml", "students": 3},
    "dml+leader": {"name": "dml", "leader": True},
    "afd": {"name": "afd", "students": 3},
    "amln": {"name": "amln", "students": 3},
    "one": {"name": "one"},
    "one+leader": {"name": "one", "leader": True},
    "ffl": {"name": "ffl"},
    "kdcl": {"name": "kdcl", "students": 3},
    "kdcl naive": {"name": "kdcl", "target": "naive"},
    "kdcl linear": {"name": "kdcl", "target": "linear"},
    "kdcl general": {"name": "kdcl", "target": "general", "students": 3},
    "okddip": {"name": "okddip"},
    "okddip networks": {"name": "okddip", "form": "networks", "students": 2},
    "end2": {"name": "end2", "ensemble": 2},
}
KNOWN = {"baseline", "ffsd", *(form["name"] for form in FORMS.values())}
#: Methods that a file more has brought: what is said of every method holds for them, formulas are not known.
ADDED = {name: {"name": name} for name in METHODS if name not in KNOWN}
#: Those that tests train: one of each method but DML, which other tests have, and AT, which is trained as KD is.
TRAINED = ("kd", "afd", "amln", "one+leader", "ffl", "kdcl general", "okddip", "end2", *ADDED)
CLASSES, IMAGES, EPOCH = 10, 8, 31
EVERY = pytest.mark.parametrize("form", FORMS)
EVERY_AND_ADDED = pytest.mark.parametrize("form", FORMS | ADDED)


def spec_of(form: str, **changes: Any) -> TrialSpec:
    return digits_spec((FORMS | ADDED)[form], **({"epochs": 3, "batch_size": 16, "steps_per_epoch": 2} | changes))


def group_of(form: str) -> tuple[Method, list[Tensor], Tensor]:
    """A group in float64 and evaluation mode, in an epoch within every ramp; views of images, labels."""
    method = build_method(spec_of(form), CLASSES, 12).double().eval()
    method.begin_epoch(EPOCH)
    if isinstance(method, One):
        method.gate.weigh[1].bias.data = torch.tensor([-3.0, 0.0, 1.0]).double()
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(IMAGES, 3, 12, 12, generator=generator, dtype=torch.float64) for _ in range(method.views)]
    return method, views, torch.arange(IMAGES) % CLASSES
