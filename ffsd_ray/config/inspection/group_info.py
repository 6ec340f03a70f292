"""Facts about a trial's group before it is trained: its number of networks, and the columns of its history.

The group is built on torch's meta device, where nothing is computed or allocated.
"""

from functools import cache

from ffsd_ray.config.inspection.flops import meta_group, phase_losses, structure
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.meta_device import meta_device
from ffsd_ray.methods import MethodSettings
from ffsd_ray.series import ANY, LOGITS, MEAN, TOP5_FROM

#: Where the images are not known: neither decides how many networks a group has, or what its terms are called.
_CLASSES, _SIZE = 1000, 224
_IMAGES = 2


def networks(trial: TrialSpec) -> int:
    """How many networks a trial trains, the leader included."""
    return _networks(structure(trial.method), trial.backbone.name, *_images(trial))


def columns(trial: TrialSpec) -> frozenset[str] | None:
    """The history's columns of accuracies, losses and terms; of validation too, whether images are held out or not.

    None where terms are not known before training, see `phase_losses`.
    """
    return _columns(structure(trial.method), trial.backbone.name, *_images(trial))


def _images(trial: TrialSpec) -> tuple[int, int]:
    return trial.data.known_classes or _CLASSES, trial.data.known_size or _SIZE


@cache
def _networks(method: MethodSettings, name: str, classes: int, size: int) -> int:
    with meta_device():
        return len(meta_group(method, name, classes, size).networks)


@cache
def _columns(method: MethodSettings, name: str, classes: int, size: int) -> frozenset[str] | None:
    with meta_device():
        group = meta_group(method, name, classes, size)
    losses = phase_losses(group, _IMAGES, size)
    if losses is None:
        return None
    terms = [f"term/{term}" for of_phase in losses for term in of_phase.terms]
    series = [*group.members, *([MEAN, ANY, LOGITS] if group.common else [])]
    measures = ["top1", "loss", *(["top5"] if classes >= TOP5_FROM else [])]
    accuracies = [
        f"{split}/{one}/{measure}"
        for split in ("val", "test", "train")
        for one in series
        for measure in measures
        if (one, measure) != (ANY, "loss")
    ]
    return frozenset([*accuracies, *terms])
