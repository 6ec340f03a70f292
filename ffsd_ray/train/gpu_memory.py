"""Whether trials can share a GPU, and how much of its memory one takes."""

import os
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.train.build import load_images
from ffsd_ray.train.cuda_graph import WARM_UP
from ffsd_ray.train.engine import Engine


class Reading(NamedTuple):
    """Bytes of a GPU: all of it, and what a process that trained a trial took of it at most."""

    total: int
    peak: int


def mps_runs() -> bool:
    """Whether NVIDIA's Multi-Process Service runs on this machine: its daemon's pipe is where CUDA looks for it."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()


def read_peak(spec: TrialSpec, device: torch.device) -> Reading:
    """Train the trial for a few steps, and predict, until all that can be captured has been.

    The process must have the GPU to itself: what is taken of it counts as the trial's, CUDA's own memory too.

    Raises:
        DataError: the images cannot be read.
        TrialError: the trial cannot be trained.
    """
    engine = Engine(spec, load_images(spec), device, world_size=spec.scale.most_workers)
    torch.cuda.reset_peak_memory_stats(device)
    engine.begin(spec.train.epochs)  # every term acts by then
    first, last = engine.inputs(1, stop=1), engine.inputs(1, engine.steps - 1)  # the last batch may be smaller
    for parts in chain(first, last):
        for _ in range(WARM_UP + 2):
            engine.step(parts, 1.0)
    engine.method.eval()
    for _ in range(WARM_UP + 2):
        engine.measure("test", 1)
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    given_back = torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device)
    return Reading(total, total - free + given_back)
