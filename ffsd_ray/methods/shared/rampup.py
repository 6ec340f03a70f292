"""The ramp-up of a loss weight over the first epochs."""

import math

import torch
from torch import Tensor, nn


class Ramp(nn.Module):
    """A factor exp(−5 (1 − e/E)²) over the first E epochs, then 1 (Laine and Aila, ICLR 2017).

    `factor` is a buffer, so that a training step captured as a CUDA graph reads each epoch's value.
    """

    factor: Tensor

    def __init__(self, epochs: int, *, first: int = 1) -> None:
        """`epochs`: E, where 0 means no ramp-up; `first`: the value of e in the first epoch, 1 or 0."""
        super().__init__()
        self._epochs, self._first = epochs, first
        self.register_buffer("factor", torch.ones(()), persistent=False)
        self.value = 1.0

    def at(self, epoch: int) -> float:
        """The factor in an epoch, which is counted from 1."""
        e = epoch - 1 + self._first
        return 1.0 if e >= self._epochs else math.exp(-5 * (1 - e / self._epochs) ** 2)

    def begin(self, epoch: int) -> None:
        """Set `factor` and `value` for an epoch, which is counted from 1."""
        self.value = self.at(epoch)
        self.factor.fill_(self.value)
