"""The most memory that a step takes."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from ffsd_ray.bench.measure.process import resident_set
from ffsd_ray.bench.measure.workload import Workload
from ffsd_ray.bench.reference.plain_ffsd import Reference
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.config.trial import TrialSpec

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_STEPS = 3


def on_gpu(run: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """Call `run`; return its result and the peak of tensor bytes beyond those that were there before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    return result, torch.cuda.max_memory_allocated(device) - before


def on_cpu(spec: TrialSpec, classes: int, size: int, *, literal: bool) -> int | None:
    """Bytes by which a new process's peak resident set grows from before the group is built to after 3 steps.

    For a compiled step that holds what compiling takes. None where there is no /proc: a process's `ru_maxrss` would
    not do, since on Linux it starts at its parent's.
    """
    if not _STATUS.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_growth, spec.model_dump(), classes, size, literal).result()


def _growth(content: dict[str, Any], classes: int, size: int, literal: bool) -> int:
    spec = TrialSpec.model_validate(content)
    dataset = synthetic_data(classes, size, train=spec.train.batch_size, test=1)
    _, before = resident_set("self")
    work = (Reference if literal else Workload)(spec, dataset, torch.device("cpu"))
    for _ in range(_STEPS):
        work.step()
    _, after = resident_set("self")
    return after - before
