"""Where the networks of a run look: attention maps of test images, computed from the last checkpoint of each trial."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import normalise
from ffsd_ray.errors import DamagedRecords, JobError, RecordsError
from ffsd_ray.losses import attention
from ffsd_ray.records.checkpoint import fits
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import collect, damages
from ffsd_ray.report.filters import where
from ffsd_ray.report.tables.captions import images_of
from ffsd_ray.train.build import build_method, normalised_for

Level = Literal["mid", "top"]

#: A level's place among a network's feature maps, shallow to deep.
_STAGES: dict[Level, int] = {"mid": -2, "top": -1}

#: Heat maps have at least this many pixels a side.
_PIXELS = 200


@dataclass(frozen=True)
class Column:
    """One network's attention at one level: float [N, k·S, k·S] in [0, 1], k times as fine as the images."""

    member: str
    level: Level
    heat: Tensor


@dataclass(frozen=True)
class Panels:
    """`images` uint8 [N, 3, S, S] with the names of their classes, and each trial's columns by its label."""

    images: Tensor
    classes: tuple[str, ...]
    trials: dict[str, list[Column]]
    caption: str
    #: What is wrong with the records of trials that are left out, each naming a file.
    damages: tuple[str, ...]


def chosen(labels: Tensor, count: int) -> list[int]:
    """`count` images of [N] labels: the first of each class, the classes evenly spread; if too few, then the second.

    A rule, not a draw: every trial and every run on the same data shows the same images.
    """
    classes = [(labels == label).nonzero().flatten().tolist() for label in labels.unique()]
    spread = min(count, len(classes))
    picked = [classes[index * len(classes) // spread] for index in range(spread)]
    in_turn = (index for turn in zip_longest(*picked) for index in turn if index is not None)
    return list(islice(in_turn, count))


def heat(maps: Tensor, size: int) -> Tensor:
    """Attention (Eq. 7) of feature maps [N, C, H, W], upsampled bilinearly, each scaled to [0, 1]: [N, size, size]."""
    looks = attention(maps).view(len(maps), 1, *maps.shape[2:])
    large = F.interpolate(looks, size=(size, size), mode="bilinear")[:, 0]
    low, high = large.amin(dim=(1, 2), keepdim=True), large.amax(dim=(1, 2), keepdim=True)
    return (large - low) / (high - low).clamp(min=torch.finfo(large.dtype).tiny)


def panels(
    run: RunRecords, conditions: Sequence[str], members: Sequence[str], levels: Sequence[Level], count: int
) -> Panels:
    """Compute the maps of the `members` (none named: all) of the trials that meet `conditions` (`where`).

    Raises:
        JobError, RecordsError: see `where`; no trial has a checkpoint, or one that is not damaged, or such a member;
            their data differ.
        DataError: the images cannot be read.
    """
    collected = {trial.spec.identity(): trial for trial in collect(run)}
    specs = where([trial.spec for trial in collected.values()], conditions)
    names = run.labels(specs)
    left_out = list(damages([collected[spec.identity()] for spec in specs]))
    states: dict[str, dict[str, Any]] = {}
    absent = []
    for spec in [spec for spec in specs if not collected[spec.identity()].damaged]:
        try:
            state = run.trial(spec.identity()).checkpoints.latest()
        except DamagedRecords as error:
            left_out.append(str(error))
            continue
        if state is None:
            absent.append(names[spec.identity()])
        else:
            states[spec.identity()] = state
    if not states:
        raise RecordsError("\n".join([*left_out, f"{run.store.location}: no checkpoint of these trials yet"]))
    specs = [spec for spec in specs if spec.identity() in states]
    if len({spec.data for spec in specs}) > 1:
        raise RecordsError(
            "these trials have different data, so no images in common: choose with --where data.KEY=VALUE"
        )
    dataset = data.load(specs[0].data, progress=True)
    test = dataset.test.select(torch.tensor(chosen(dataset.test.labels, count)))
    [(images, labels)] = test.unaugmented([slice(None)])
    fine = dataset.image_size * -(-_PIXELS // dataset.image_size)
    trials: dict[str, list[Column]] = {}
    there: dict[str, None] = {}
    fitting: list[TrialSpec] = []
    for spec in specs:
        state = states[spec.identity()]
        method = build_method(spec, dataset.num_classes, dataset.image_size)
        if not fits(method, state["method"]):
            left_out.append(str(run.trial(spec.identity()).checkpoints.mismatch_error()))
            continue
        method.load_state_dict(state["method"])
        method.eval()
        fitting.append(spec)
        trained_on = normalised_for(spec, dataset)
        inputs = normalise(images, trained_on.mean, trained_on.std)
        there |= dict.fromkeys(method.networks)
        for member, network in method.networks.items():
            if members and member not in members:
                continue
            with torch.inference_mode():
                maps = method.features(network, inputs).maps
            columns = [Column(member, level, heat(maps[_STAGES[level]], fine)) for level in levels]
            trials.setdefault(names[spec.identity()], []).extend(columns)
    if not fitting:
        raise RecordsError("\n".join(left_out))
    if not trials:
        raise JobError(f"--members {' '.join(members)}: these trials have {', '.join(there)}")
    caption = _caption(fitting, states) + (f" No checkpoint yet: {'; '.join(absent)}." if absent else "")
    return Panels(images, tuple(dataset.classes[label] for label in labels.tolist()), trials, caption, tuple(left_out))


def _caption(specs: Sequence[TrialSpec], states: dict[str, dict[str, Any]]) -> str:
    epochs = _each(str(len(states[spec.identity()]["progress"]["rows"])) for spec in specs)
    return (
        f"Test images of {images_of(specs[0].data)}; {_each(spec.backbone.name for spec in specs)} "
        f"after epoch {epochs}, {_each(spec.seed_label for spec in specs)}. "
        "Attention: mean of the squared feature map over its channels, upsampled bilinearly, "
        "each map scaled from blue (its minimum) to red (its maximum)."
    )


def _each(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))
