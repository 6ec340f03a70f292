"""The ramp-up of a loss weight over the first epochs."""

import math

import torch
from torch import Tensor, nn


class Ramp(nn.Module):
    """exp(−5 (1 − e/E)²) in the first E epochs e, then 1: a tensor, so that a captured step sees its new value."""

    factor: Tensor

    def __init__(self, epochs: int, *, first: int = 1) -> None:
        """`epochs`: E, 0 for no rise; `first`: what e is in the first epoch, 1 or 0."""
        super().__init__()
        self._epochs, self._first = epochs, first
        self.register_buffer("factor", torch.ones(()), persistent=False)
        self.value = 1.0

    def at(self, epoch: int) -> float:
        """The factor in an epoch (from 1)."""
        e = epoch - 1 + self._first
        return 1.0 if e >= self._epochs else math.exp(-5 * (1 - e / self._epochs) ** 2)

    def begin(self, epoch: int) -> None:
        self.value = self.at(epoch)
        self.factor.fill_(self.value)
