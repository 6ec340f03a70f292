"""Batch norm's counters of batches, which are counted but, with a fixed momentum, never used."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class BatchNormCounters:
    """The counters of a module's batch norms, for all to be raised by one operation in place of one each."""

    def __init__(self, module: nn.Module) -> None:
        # Synchronised ones want their counters.
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        self._layers = [layer for layer in module.modules() if isinstance(layer, kinds)]

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
