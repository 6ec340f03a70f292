"""Small trials that the tests share."""

from typing import Any

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import METHODS, MethodSettings


def method_settings(name: str, **settings: Any) -> MethodSettings:
    """The settings of a method, given as in a job file."""
    return METHODS[name].Settings(name=name, **settings)


def digits_spec(
    method: dict[str, Any],
    *,
    backbone: str = "resnet8",
    workers: int = 1,
    seed: int = 0,
    data: dict[str, Any] | None = None,
    **train: Any,
) -> TrialSpec:
    """A few steps on digits at 12×12 pixels with one thread a worker; held-out images where the method wants some."""
    held_out = {"validation": 0.1} if method_settings(**method).requires_validation else {}
    return TrialSpec.model_validate(
        {
            "data": {"name": "digits", "image_size": 12, "test_per_class": 6} | held_out | (data or {}),
            "backbone": {"name": backbone},
            "method": method,
            "train": {"epochs": 3, "batch_size": 32, "lr": 0.05, "steps_per_epoch": 3} | train,
            "scale": {"workers": workers, "threads": 1},
            "seed": seed,
        }
    )
