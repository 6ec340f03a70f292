"""`scale.gpus_per_worker: auto`: how many trials share a GPU, from what one takes of it.

They do where NVIDIA's Multi-Process Service (MPS) lets processes compute on a GPU at the same time. Without it they
take turns, by which nothing is gained once steps are CUDA graphs (bench/README.md).
"""

import os
from collections.abc import Sequence
from typing import Any

import ray
import torch

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.train.gpu_memory import Reading, mps_runs, read_peak

#: The part of a GPU's memory that is given out; the rest is for what a longer training takes beyond the reading.
_GIVEN = 0.9
#: Eight trials of three ResNet-32 do 8 % more steps a second together than four, on an H200.
_MOST_TOGETHER = 8
#: Ray counts GPUs in ten-thousandths.
_PARTS = 10_000


def share(reading: Reading) -> float:
    """The GPU share of a worker, so that floor(0.9 · total / peak) of them, one to eight, are on a GPU.

    Cut to what Ray can count, never rounded up: all of them together stay within the GPU.
    """
    together = min(max(int(_GIVEN * reading.total / reading.peak), 1), _MOST_TOGETHER)
    return max(_PARTS // together, 1) / _PARTS


def resolve_gpu_shares(trials: Sequence[TrialSpec]) -> list[TrialSpec]:
    """Replace each trial's `gpus_per_worker: auto` by the share that a step's peak memory requires; 1 without MPS.

    One GPU of the cluster reads each configuration once, whatever its seeds.
    """
    asking = {
        spec.configuration().identity(): spec.configuration() for spec in trials if spec.scale.gpus_per_worker == "auto"
    }
    # Not yet run with Ray on a GPU: the waiting for one.
    read = ray.remote(num_cpus=1, num_gpus=1)(_read)
    readings = {name: read.remote(spec.model_dump(), os.getcwd()) for name, spec in asking.items()}
    shares = {name: _share_of(reading) for name, reading in readings.items()}
    return [_with_share(spec, shares.get(spec.configuration().identity())) for spec in trials]


def _share_of(promised: ray.ObjectRef[Reading | None]) -> float:
    """The share of a reading; a whole GPU where the trial failed, since it will report its error itself."""
    try:
        reading = ray.get(promised)
    except ray.exceptions.RayError:
        return 1.0
    return 1.0 if reading is None else share(reading)


def _read(spec: dict[str, Any], directory: str) -> Reading | None:
    if not mps_runs():
        return None
    if os.path.isdir(directory):
        os.chdir(directory)
    return read_peak(TrialSpec.model_validate(spec), torch.device("cuda"))


def _with_share(spec: TrialSpec, gpus: float | None) -> TrialSpec:
    if gpus is None:
        return spec
    return spec.changed(scale=spec.scale.changed(gpus_per_worker=gpus))
