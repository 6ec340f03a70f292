"""Trials in which whatever changes between steps does so while they are replayed as CUDA graphs."""

from typing import Any

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import METHODS

from helpers.specs import digits_spec

#: Whatever changes between steps does so while they are replayed: rates by step and epoch, ramps, annealing, clipping.
_CHANGING: dict[str, dict[str, Any]] = {
    "dml": {"name": "dml", "leader": True, "warmup_epochs": 3},
    "ffsd": {"name": "ffsd", "warmup_epochs": 3},
    "ffsd paper": {"name": "ffsd", "students": 3, "formulation": "paper", "warmup_epochs": 3},
    "one": {"name": "one", "leader": True, "ramp_epochs": 3, "warmup_epochs": 3},
    "kdcl linear": {"name": "kdcl", "target": "linear"},
    "kdcl general": {"name": "kdcl", "target": "general"},
    "okddip networks": {"name": "okddip", "form": "networks", "ramp_epochs": 3},
    "end2": {"name": "end2", "ensemble": 2, "hold_epochs": 1, "anneal_epochs": 3, "clip_norm": 0.05},
    "afd": {"name": "afd", "ramp_epochs": 3},
    "ffl": {"name": "ffl", "ramp_epochs": 3},
    "okddip": {"name": "okddip", "ramp_epochs": 3},
}
#: Everything that is drawn for an image or a step.
_REGULARISED: dict[str, Any] = {
    "optimiser": "adamw", "lr": 0.01, "milestones": None, "schedule": "cosine", "label_smoothing": 0.1, "mixup": 0.3,
    "cutmix": 1.0, "random_erasing": 0.5, "augment": "trivial",
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = (
    {name: {"name": name} for name in METHODS} | _CHANGING | {"regularised": {"name": "ffsd"}}
)


def graph_spec(form: str) -> TrialSpec:
    """Two full batches and a partial one an epoch, and in an evaluation one of each."""
    return digits_spec(
        FORMS[form],
        backbone="resnet8",
        data={"train_per_class": 10, "test_per_class": 6},
        epochs=5,
        batch_size=40,
        steps_per_epoch=None,
        eval_batch_size=40,
        **{"warmup_epochs": 2, "milestones": [4], "ema": 0.9, **(_REGULARISED if form == "regularised" else {})},
    )
