"""Mixed precision: networks run under bfloat16 autocast, losses are computed in float32."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from ffsd_ray.backbones import Features

Precision = Literal["fp32", "bf16"]


def full_precision(x: Tensor) -> Tensor:
    """Convert bfloat16 to float32; return a tensor of any other type as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


class _InBfloat16(torch.autograd.Function):
    """Copies of weights in bfloat16, and gradients back in the weights' type: one operation each for all of them."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _converted(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        converted = iter(_converted([gradient for gradient in gradients if gradient is not None], torch.float32))
        return tuple(None if gradient is None else next(converted) for gradient in gradients)


def _converted(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies


def forward(net: nn.Module, x: Tensor, precision: Precision) -> Any:
    """What a network gives for x [B, ...] under the precision; its maps and logits may be in bfloat16."""
    if precision == "fp32":
        return net(x)
    # Autocast by itself converts weight by weight, two small kernels for each of a hundred in every step.
    weights = {
        f"{name}.{key}" if name else key: weight
        for name, module in net.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear))
        for key, weight in module.named_parameters(recurse=False)
    }
    with torch.autocast(x.device.type, torch.bfloat16):
        copies = dict(zip(weights, _InBfloat16.apply(*weights.values()), strict=True))
        # Modules that two networks share are found once here, by their first name; tied ones would be set twice.
        return functional_call(net, copies, (x,), tie_weights=False)


def features(net: nn.Module, x: Tensor, precision: Precision) -> Features:
    """Forward pass of a backbone on x [B, ...] under the precision, with results in float32."""
    return _features_in_full_precision(forward(net, x, precision))


def features_of_several(nets: nn.Module, x: Tensor, precision: Precision) -> list[Features]:
    """Forward pass of a module that returns the features of several networks, with results in float32."""
    return [_features_in_full_precision(out) for out in forward(nets, x, precision)]


def _features_in_full_precision(out: Features) -> Features:
    """Features with logits and maps in float32."""
    return Features(full_precision(out.logits), [full_precision(m) for m in out.maps])


def feature_maps(net: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """Forward pass of a network that returns one batch of feature maps, with the result in float32."""
    return full_precision(forward(net, x, precision))
