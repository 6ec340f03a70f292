"""The memory that a trial needs at the least, told before any of it is taken."""

import os
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffsd_ray.backbones import backbone
from ffsd_ray.config.load import Plan
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import JobError
from ffsd_ray.memory import as_bytes, machine_memory
from ffsd_ray.meta_device import meta_device
from ffsd_ray.methods.shared.branch_group import BranchSettings

#: Of every weight: itself, its gradient, the optimiser's state and the copy of the best epoch's.
_COPIES = 4

_COUNTED_IMAGES = 2


class MemoryEstimate(NamedTuple):
    """Bytes of a worker: images kept in memory, weights with what goes with them, and a step's intermediate results."""

    images: int
    weights: int
    step: int

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        parts = zip(("images", "weights", "a step"), self, strict=True)
        return f"{as_bytes(self.total)} ({', '.join(f'{name} {as_bytes(size)}' for name, size in parts)})"


def estimate_memory(trial: TrialSpec) -> MemoryEstimate | None:
    """A lower bound of one worker's memory in bytes; None if the images' size or classes are not known yet."""
    data, scale = trial.data, trial.scale
    size, classes, train_images = data.known_size, data.known_classes, data.known_train_images
    if size is None or classes is None:
        return None
    resident = 0 if train_images is None or getattr(data, "stream", False) else train_images * 3 * size**2
    # Branches of one trunk count once; leaders and modules, which come on top, do not: the least that it can be.
    networks = 1 if isinstance(trial.method, BranchSettings) else getattr(trial.method, "students", 1)
    others = trial.method.other_backbones
    names = [trial.backbone.name] * (networks - len(others)) + [*others]
    try:
        weights, saved = (sum(sizes) for sizes in zip(*(_network_bytes(n, classes, size) for n in names), strict=True))
    except Exception:  # of a user's own backbone of any kind; what does not pass through is told with the images
        return None
    batch = trial.train.batch_size if train_images is None else min(trial.train.batch_size, train_images)
    if trial.train.precision == "bf16":
        saved //= 2
    return MemoryEstimate(resident, _COPIES * weights, saved * max(1, batch // scale.most_workers))


@cache
def _network_bytes(name: str, classes: int, size: int) -> tuple[int, int]:
    """Bytes of a backbone's weights, and those that an image's forward pass keeps for the backward pass."""
    saved: dict[int, Tensor] = {}  # with the tensors, so that no address is given twice

    def count(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with meta_device():
        network = backbone(name)(classes)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(torch.empty(_COUNTED_IMAGES, 3, size, size))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return weights, sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) // _COUNTED_IMAGES


def memory_problem(trial: TrialSpec) -> str | None:
    """A message if a trial's lower bound exceeds the memory of this machine or of its GPU, else None."""
    worker = estimate_memory(trial)
    if worker is None:
        return None
    if trial.scale.uses_gpu:
        if not torch.cuda.is_available():
            return None
        place, available, required = (
            "this machine's GPU",
            torch.cuda.get_device_properties(0).total_memory,
            worker.total,
        )
    else:
        place, available, required = "this machine", machine_memory(), trial.scale.fewest_workers * worker.total
    if required <= available:
        return None
    workers = f"{trial.scale.fewest_workers} workers of " if required > worker.total else ""
    return f"needs about {workers}{worker}; {place} has {as_bytes(available)}"


def check_memory(plan: Plan) -> list[str]:
    """Notes on trials that this machine could not hold, where another one may be meant.

    Raises:
        JobError: there is no other one.
    """
    found = {f"{trial.method.label()}: {why}" for trial in plan.specs if (why := memory_problem(trial))}
    if not found:
        return []
    if plan.job.context == "ray" and os.environ.get("RAY_ADDRESS"):
        return sorted(found)
    keys = "train.batch_size, data.image_size, method.students, scale.workers"
    on_gpu = any(trial.scale.uses_gpu for trial in plan.specs)
    instead = " Or train on the CPU: scale.gpus_per_worker: 0." if on_gpu else ""
    raise JobError("\n".join(sorted(found)) + f"\nLess of it: {keys}.{instead}")
