"""Mixed precision: networks run under bfloat16 autocast, losses are computed in float32."""

import contextlib
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ffsd_ray.backbones import Features

Precision = Literal["fp32", "bf16"]


def autocast(x: Tensor, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """A context of bfloat16 autocast on x's device; for fp32 one that does nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, torch.bfloat16)


def full_precision(x: Tensor) -> Tensor:
    """Convert bfloat16 to float32; return a tensor of any other type as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def features(net: nn.Module, x: Tensor, precision: Precision) -> Features:
    """Forward pass of a backbone on x [B, ...] under the precision, with results in float32."""
    with autocast(x, precision):
        out = net(x)
    return _features_in_full_precision(out)


def features_of_several(nets: Callable[[Tensor], list[Features]], x: Tensor, precision: Precision) -> list[Features]:
    """Forward pass of a module that returns the features of several networks, with results in float32."""
    with autocast(x, precision):
        outputs = nets(x)
    return [_features_in_full_precision(out) for out in outputs]


def _features_in_full_precision(out: Features) -> Features:
    """Features with logits and maps in float32."""
    return Features(full_precision(out.logits), [full_precision(m) for m in out.maps])


def feature_maps(net: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """Forward pass of a network that returns one batch of feature maps, with the result in float32."""
    with autocast(x, precision):
        out = net(x)
    return full_precision(out)
