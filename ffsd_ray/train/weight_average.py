"""The moving average of a group's weights (Polyak and Juditsky, 1992; Tarvainen and Valpola, NIPS 2017)."""

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ffsd_ray.methods.base import Method


class WeightAverage:
    """A copy of a group whose weights follow the trained ones, w ← d · w + (1 − d) · trained, after every step.

    Batch-norm statistics are averaged with the weights. The copy begins as the group is; it does not change how the
    group is trained. Nothing here waits for the device.
    """

    def __init__(self, method: Method, decay: float) -> None:
        """`decay`: d."""
        teachers, method.teachers = method.teachers, []  # the copy makes predictions, for which none is needed
        self.group = copy.deepcopy(method).requires_grad_(False).eval()
        method.teachers = teachers
        self._update_average = get_ema_multi_avg_fn(decay)
        #: Pairs of lists, averaged and trained, of tensors of one type each.
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        tensors = ([*group.parameters(), *group.buffers()] for group in (self.group, method))
        pairs: list[tuple[Tensor, Tensor]] = list(zip(*tensors, strict=True))
        for dtype in dict.fromkeys(average.dtype for average, _ in pairs):
            same_type = [pair for pair in pairs if pair[0].dtype == dtype]
            self._pairs.append(([a.detach() for a, _ in same_type], [trained.detach() for _, trained in same_type]))

    @torch.no_grad()
    def update(self) -> None:
        """Take the group's weights as they are now into the average."""
        for averages, trained in self._pairs:
            if averages[0].is_floating_point():
                self._update_average(averages, trained, 0)
            else:  # counters of batch norm
                torch._foreach_copy_(averages, trained)
