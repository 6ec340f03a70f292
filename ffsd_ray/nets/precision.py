"""Precision of networks: in bf16 they run under autocast; losses are computed in float32 in each."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from ffsd_ray.backbones import Features
from ffsd_ray.nets.concurrent import concurrently

Precision = Literal["fp32", "tf32", "bf16"]


class _Converted(torch.autograd.Function):
    """Copies in `to` of tensors in `source`, and gradients back: one operation each for all of them."""

    @staticmethod
    def forward(ctx: Any, source: torch.dtype, to: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.source = source
        return _converted(tensors, to)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        converted = iter(_converted([gradient for gradient in gradients if gradient is not None], ctx.source))
        return None, None, *(None if gradient is None else next(converted) for gradient in gradients)


def _converted(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies


def full_precision(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Convert bfloat16 to float32, together; return a tensor of any other type as it is, and one tensor once."""
    low = list(dict.fromkeys(tensor for tensor in tensors if tensor.dtype == torch.bfloat16))
    if not low:
        return list(tensors)
    converted = dict(zip(low, _Converted.apply(torch.bfloat16, torch.float32, *low), strict=True))
    return [converted.get(tensor, tensor) for tensor in tensors]


def forward(net: nn.Module, x: Tensor, precision: Precision) -> Any:
    """What a network gives for x [B, ...] under the precision; its maps and logits may be in bfloat16."""
    if precision != "bf16":
        return net(x)
    # Autocast by itself converts weight by weight, two small kernels for each of a hundred in every step.
    weights = {
        f"{name}.{key}" if name else key: weight
        for name, module in net.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear))
        for key, weight in module.named_parameters(recurse=False)
    }
    with torch.autocast(x.device.type, torch.bfloat16):
        copies = dict(zip(weights, _Converted.apply(torch.float32, torch.bfloat16, *weights.values()), strict=True))
        # Modules that two networks share are found once here, by their first name; tied ones would be set twice.
        return functional_call(net, copies, (x,), tie_weights=False)


def features(net: nn.Module, x: Tensor, precision: Precision) -> Features:
    """Forward pass of a backbone on x [B, ...] under the precision, with results in float32."""
    (found,) = features_of_networks([net], [x], precision)
    return found


def features_of_networks(nets: Sequence[nn.Module], inputs: Sequence[Tensor], precision: Precision) -> list[Features]:
    """Forward passes of several backbones, each on its input [B, ...], see `features` and `concurrently`."""
    outputs: list[Features] = concurrently([partial(forward, net, precision=precision) for net in nets], inputs)
    return _in_full_precision(outputs)


def features_of_several(nets: nn.Module, x: Tensor, precision: Precision) -> list[Features]:
    """Forward pass of a module that returns the features of several networks, with results in float32."""
    return _in_full_precision(forward(nets, x, precision))


def _in_full_precision(outputs: Sequence[Features]) -> list[Features]:
    """Features with logits and maps in float32."""
    converted = iter(full_precision([tensor for out in outputs for tensor in (out.logits, *out.maps)]))
    return [Features(next(converted), list(islice(converted, len(out.maps)))) for out in outputs]


def feature_maps(net: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """Forward pass of a network that returns one batch of feature maps, with the result in float32."""
    (maps,) = full_precision([forward(net, x, precision)])
    return maps
