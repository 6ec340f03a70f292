"""Batch norm over several workers, and its counters of batches, which a fixed momentum has no use for."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronised(module: M) -> M:
    """Replace a module's batch norms by ones whose statistics are of the global batch.

    Batch norms of timm have an activation in them, which torch's conversion would leave out, and timm's does not.
    """
    if any(isinstance(layer, _PLAIN) and type(layer).__module__.startswith("timm.") for layer in module.modules()):
        from timm.layers import convert_sync_batchnorm as convert
    else:
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
    converted: M = convert(module)
    return converted


class BatchNormCounters:
    """The counters of a module's batch norms, for all to be raised by one operation in place of one each."""

    def __init__(self, module: nn.Module) -> None:
        # Synchronised ones want their counters.
        self._layers = [layer for layer in module.modules() if isinstance(layer, _PLAIN)]

    @contextlib.contextmanager
    def raised_together(self) -> Iterator[None]:
        """Around a forward pass: each layer in training mode counts one batch, whether the pass reaches it or not."""
        counters = [
            (layer, layer.num_batches_tracked)
            for layer in self._layers
            if layer.training and layer.num_batches_tracked is not None
        ]
        for layer, _ in counters:
            layer.num_batches_tracked = None
        try:
            yield
        finally:
            for layer, counter in counters:
                layer.num_batches_tracked = counter
        if counters:
            torch._foreach_add_([counter for _, counter in counters], 1)
