"""The roofline: a device's measured limits, and the counted work of a training step."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ffsd_ray.bench.measure.workload import with_train
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.nets.precision import Precision
from ffsd_ray.train.build import build_method

#: Sides of the matrices, and bytes copied.
_SIDE = {"cpu": 1536, "cuda": 8192}
_COPIED = {"cpu": 2**28, "cuda": 2**30}

#: Times that a step passes over what it keeps for its backward pass. Of a convolution with its normalisation and
#: activation, which keep two maps: the first is written, read for its statistics and to be normalised; the second is
#: written and read by the next convolution. Backward, the second's gradient is written; it, the second and the first
#: are read for the statistics' gradient, then gradient and first once more; the first's gradient is written, and read
#: with the map before it twice over for weights and input. 14 passes over a map, so 7 over what is kept.
_PASSES = 7


class RooflineProbe(NamedTuple):
    """Something large, and the FLOP or bytes of it."""

    run: Callable[[], object]
    amount: float


def probes(device: torch.device, precisions: Iterable[Precision]) -> dict[str, RooflineProbe]:
    """A matrix product in each precision, as trials compute in it, FLOP; `copy`, bytes read and written."""
    source = torch.empty(_COPIED[device.type], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    copy_probe = {"copy": RooflineProbe(lambda: target.copy_(source), 2.0 * source.nbytes)}
    return copy_probe | {precision: _product(device, precision) for precision in precisions}


def _product(device: torch.device, precision: Precision) -> RooflineProbe:
    side = _SIDE[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b, c = (torch.randn(side, side, device=device).to(kind) for _ in range(3))

    def run() -> None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.mm(a, b, out=c)
        torch.backends.cuda.matmul.allow_tf32 = False

    return RooflineProbe(run, 2.0 * side**3)


def bytes_per_image(spec: TrialSpec, classes: int, size: int, device: torch.device) -> float:
    """Bytes that an image's share of a training step reads and writes at the least, nothing staying in caches.

    Counted: `_PASSES` over every activation that the eager step keeps for its backward pass. Weights are left out.
    """
    few, many = 2, 4  # the difference leaves out what does not grow with the batch, such as weights in bfloat16
    group = build_method(with_train(spec, execution="eager"), classes, size).to(device)
    saved_bytes = []
    for images in (few, many):
        views = [torch.zeros(images, 3, size, size, device=device) for _ in range(group.views)]
        labels = torch.zeros(images, dtype=torch.long, device=device)
        saved_bytes.append(sum(_bytes_saved(partial(group, views, labels, phase.name)) for phase in group.phases))
    return _PASSES * (saved_bytes[1] - saved_bytes[0]) / (many - few)


def _bytes_saved(run: Callable[[], object]) -> int:
    """Bytes of all that autograd saves during a run, each storage once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = run()  # while the results live, what was saved does, and no address comes twice
    del alive
    return sum(sizes.values())
