"""Timing several ways of doing the same thing so that a noisy machine treats them alike."""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

import torch

K = TypeVar("K", bound=Hashable)

#: Seconds that are timed at once.
_LEAST = 0.05


class Timing(NamedTuple):
    """Seconds: the median and the quartiles over `repeats`."""

    median: float
    low: float
    high: float
    repeats: int

    def figures(self, scale: float = 1.0) -> dict[str, Any]:
        """For a record."""
        return {
            "n": self.repeats,
            "median": self.median * scale,
            "quartiles": [self.low * scale, self.high * scale],
        }


def time_interleaved(
    runs: Mapping[K, Callable[[], object]], *, warm_up: int, repeats: int, device: torch.device
) -> dict[K, Timing]:
    """Time every run `repeats` times, in turns, after `warm_up` turns that do not count.

    What took less than 0.05 s when it was warmed up is done several times in a row, of which the mean counts: a GPU
    that is waited for after every step spends a part of its time on starting the next one, which in training it has
    been given before.
    """
    calls = dict.fromkeys(runs, 1)
    seconds: dict[K, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            wait_for(device)
            began = time.perf_counter()
            for _ in range(calls[name]):
                run()
            wait_for(device)
            took = (time.perf_counter() - began) / calls[name]
            if turn < warm_up:
                calls[name] = math.ceil(_LEAST / took)
            else:
                seconds[name].append(took)
    return {name: _timing(values) for name, values in seconds.items()}


def _timing(values: list[float]) -> Timing:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Timing(median(values), low, high, len(values))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it has been given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
