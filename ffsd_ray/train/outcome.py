"""What is recorded of a trial at its end: its result, and the description of the network that is deployed."""

from typing import Any

import torch

from ffsd_ray.card import Card
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.methods import Method
from ffsd_ray.quality import named_confusion
from ffsd_ray.train.engine import Engine, trained_parameters
from ffsd_ray.train.mid_epoch import Progress


def card(spec: TrialSpec, method: Method, dataset: Dataset, member: str, epoch: int, top1: float) -> Card:
    """The card of the deployed `member`'s weights after `epoch`; `top1`: on the test images, in percent."""
    backbones = dict(zip(method.common, spec.method.student_backbones, strict=False))
    return Card(
        backbone=backbones.get(member, spec.backbone.name),
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        image_size=dataset.image_size,
        precision=spec.train.precision,
        member=member,
        epoch=epoch,
        split="test",
        top1=top1,
        spec=spec.model_dump(),
        trial=spec.identity(),
    )


def result(
    spec: TrialSpec, dataset: Dataset, engine: Engine, progress: Progress, deployed: str, selection: str
) -> dict[str, Any]:
    """The result of the epochs so far (`ffsd_ray.records.schemas.RESULT`).

    `deployed`: the member; `selection`: the split that chose the best epoch.
    """
    method, executor, device = engine.method, engine.executor, engine.device
    confusion = named_confusion(progress.confusion, dataset.classes) if progress.confusion is not None else {}
    exploits = [f"exploited from {taken['from']} at {taken['epoch']}" for taken in progress.lineage]
    return {
        "ended": "; ".join(exploits) or "completed",
        "epochs": spec.train.epochs,
        "members": method.members,
        "common": method.common,
        "deployed": deployed,
        "primary_series": spec.method.primary_series,
        "selection": selection,
        "last": progress.rows[-1],
        "best": progress.best,
        **({"confusion": confusion} if confusion else {}),
        "classes": dataset.num_classes,
        "image_size": dataset.image_size,
        "parameters": {
            "trained": trained_parameters(method),
            "deployed": trained_parameters(method.networks[deployed]),
        },
        "peak_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "seconds": sum(row["seconds"] for row in progress.rows),
        "execution": {"as": executor.execution, "captured": executor.captured},
    }
