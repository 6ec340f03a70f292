"""Floating point operations, counted on torch's meta device: nothing is computed or allocated.

Of convolutions and matrix products, as torch's `FlopCounterMode` counts: a multiplication and an addition each.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ffsd_ray.backbones import backbone, map_shapes
from ffsd_ray.meta_device import meta_device
from ffsd_ray.methods import METHODS, Blueprint, Losses, Method, MethodSettings
from ffsd_ray.nets.branches import Branches
from ffsd_ray.nets.fusion import Decoder, Fusion
from ffsd_ray.nets.self_distillation import SelfDistillation

_COUNTED_IMAGES = 4


class FlopCounter(TorchDispatchMode):
    """Counts by the formulas of torch's `FlopCounterMode`, in half its time: that one counts by module too."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        result = function(*args, **given)
        formula: Callable[..., int] | None = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **given, out_val=result)
        return result


def flops_per_image(method: MethodSettings, name: str, classes: int, size: int) -> float | None:
    """Operations of a training step per image, in all networks and phases, backward too. `name`: the backbone's.

    None where the step cannot be followed on the meta device: an added method may look at values, which has none.
    """
    return _counted(structure(method), name, classes, size)


def structure(method: MethodSettings) -> MethodSettings:
    """The settings with defaults for fractions (weights of losses, temperatures): its networks and operations stay."""
    fields = type(method).model_fields
    defaults = {
        name: fields[name].default
        for name, value in method
        if isinstance(value, float) and not fields[name].is_required()
    }
    return method.changed(**defaults)


@cache
def _counted(method: MethodSettings, name: str, classes: int, size: int) -> float | None:
    with meta_device():
        group = meta_group(method, name, classes, size)
        for layer in group.modules():
            if isinstance(layer, nn.BatchNorm2d):  # counts for nothing, and is slow there
                layer.forward = Tensor.clone  # type: ignore[method-assign, assignment]
    counter = FlopCounter()
    with counter:
        losses = phase_losses(group, _COUNTED_IMAGES, size, backward=True)
    return None if losses is None else counter.total / _COUNTED_IMAGES


def phase_losses(group: Method, images: int, size: int, *, backward: bool = False) -> list[Losses] | None:
    """The losses of each phase of a group from `meta_group`, for so many images; with `backward` their gradients too.

    None where there are none: batch norm refuses a single value, and an added method may look at values.
    """
    losses = []
    with meta_device():
        views = [torch.empty(images, 3, size, size) for _ in range(group.views)]
        labels = torch.empty(images, dtype=torch.long)
        try:
            for phase in group.phases:
                losses.append(group(views, labels, phase.name))
                if backward:
                    losses[-1].total.backward()
        except Exception:  # of any kind: it is the code of others that runs here
            return None
    return losses


class Component(NamedTuple):
    """A kind of network in a group. `macs`: multiply-adds of the forward pass of one image through one of them."""

    name: str
    macs: int
    number: int


@cache
def components(method: MethodSettings, name: str, classes: int, size: int) -> tuple[Component, ...]:
    """The parts of a group on a backbone `name`, in the order of Table VII; of the decoder the table says nothing.

    Gates, projections, containers and discriminators are left out.
    """
    with meta_device():
        group = meta_group(method, name, classes, size).eval()
    channels, height, width = map_shapes(backbone(name), size)[-1]
    everywhere = list(group.modules())
    parts = [part for module in everywhere if isinstance(module, Branches) for part in _branched(module, name, size)]
    on_trunks = {network for module in everywhere if isinstance(module, Branches) for network in module.networks}
    inputs = {
        SelfDistillation: ("self-distillation", channels),
        Fusion: ("fusion", len(group.common) * channels),
        Decoder: ("decoder", channels),
    }
    whole = [network for network in group.networks.values() if network not in on_trunks]
    backbones = method.student_backbones or [name] * len(whole)
    found = [
        (one, [network for network, its in zip(whole, backbones, strict=True) if its == one], (3, size, size))
        for one in dict.fromkeys(backbones)
    ]
    found.append(("teacher", group.teachers, (3, size, size)))
    for kind, (called, width_in) in inputs.items():
        found.append((called, [m for m in everywhere if isinstance(m, kind)], (width_in, height, width)))
    return (
        *parts,
        *(Component(called, _macs(nets[0], shape), len(nets)) for called, nets, shape in found if nets),
    )


def _branched(branches: Branches, name: str, size: int) -> tuple[Component, Component]:
    """Trunk and branches, from what all of them and one of them with the trunk take."""
    number, images = len(branches.networks), (3, size, size)
    together, one = _macs(branches, images), _macs(branches.networks[0], images)
    branch = (together - one) // (number - 1)
    return Component(f"{name} trunk", one - branch, 1), Component(f"{name} branch", branch, number)


def _macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    counter = FlopCounter()
    with torch.no_grad(), counter:
        network(torch.empty(1, *shape, device="meta"))
    return counter.total // 2


def meta_group(method: MethodSettings, name: str, classes: int, size: int) -> Method:
    build = backbone(name)
    return METHODS[method.name](method, Blueprint(build, map_shapes(build, size), classes))
