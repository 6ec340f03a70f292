"""Running networks in bfloat16 while everything around them stays in full precision."""

import contextlib
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ffsd_ray.backbones import Features

Precision = Literal["fp32", "bf16"]


def mixed(x: Tensor, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Autocast for x's device where the precision asks for it."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, torch.bfloat16)


def full(x: Tensor) -> Tensor:
    """bfloat16 to float32; anything wider as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def features(net: nn.Module, x: Tensor, precision: Precision) -> Features:
    """A network's forward pass, its results in full precision for the losses."""
    with mixed(x, precision):
        out = net(x)
    return _in_full(out)


def several(nets: Callable[[Tensor], list[Features]], x: Tensor, precision: Precision) -> list[Features]:
    """The same for a function that returns the features of several networks."""
    with mixed(x, precision):
        found = nets(x)
    return [_in_full(out) for out in found]


def _in_full(out: Features) -> Features:
    """Logits and maps in full precision."""
    return Features(full(out.logits), [full(m) for m in out.maps])


def maps(net: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """The same for a network that returns feature maps alone."""
    with mixed(x, precision):
        out = net(x)
    return full(out)
