"""Measuring the GPU memory of a trial's training step."""

from typing import NamedTuple

import torch

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.train.cuda_graph import WARM_UP
from ffsd_ray.train.engine import Engine


class Reading(NamedTuple):
    """Bytes of a GPU: free before, and reserved at most while a trial trained on it."""

    free: int
    peak: int


def read_peak(spec: TrialSpec, device: torch.device) -> Reading:
    """Train the trial for a few steps, until one has been captured where steps are, and predict a batch.

    Raises:
        DataError: the images cannot be read.
        TrialError: the trial cannot be trained.
    """
    free, _ = torch.cuda.mem_get_info(device)
    torch.cuda.reset_peak_memory_stats(device)
    engine = Engine(spec, data.load(spec.data), device, world_size=spec.scale.most_workers)
    engine.begin(spec.train.epochs)  # every term acts by then
    for parts in engine.inputs(1, stop=WARM_UP + 2):
        engine.step(parts, 1.0)
    engine.method.eval()
    engine.measure("test", 1)
    return Reading(free, torch.cuda.max_memory_reserved(device))
