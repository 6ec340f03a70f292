"""Batch norm over several workers, and its counters of batches, which a fixed momentum has no use for."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronised(module: nn.Module) -> nn.Module:
    """Replace a module's batch norms by ones whose statistics are of the global batch.

    Batch norms of timm have an activation in them, which torch's conversion would leave out, and timm's does not.
    """
    if all(type(layer) in _PLAIN for layer in module.modules() if isinstance(layer, _BatchNorm)):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(module)


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
