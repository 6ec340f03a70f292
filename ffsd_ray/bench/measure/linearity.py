"""Whether the cost of a step is linear in the number of students."""

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ffsd_ray.bench.measure.timing import time_interleaved
from ffsd_ray.bench.measure.workload import Workload
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods.dml import MutualSettings
from ffsd_ray.train.cuda_graph import WARM_UP


def linear_cost(specs: Sequence[TrialSpec], device: torch.device, repeats: int) -> dict[str, Any]:
    """Figures of a step by the number n of common students, and the line a + b (n + 1) through their medians."""
    gc.collect()
    works = {}
    for spec in specs:
        assert isinstance(spec.method, MutualSettings)
        assert spec.data.known_classes is not None
        assert spec.data.known_size is not None
        images = synthetic_data(spec.data.known_classes, spec.data.known_size, train=spec.train.batch_size, test=1)
        works[spec.method.students] = Workload(spec, images, device)
    warm_up = WARM_UP + 2 if device.type == "cuda" else 1
    runs = {str(students): work.step for students, work in works.items()}
    timed = time_interleaved(runs, warm_up=warm_up, repeats=repeats, device=device)
    return {
        "students": {students: timing.figures() for students, timing in timed.items()},
        "fit": fit({int(students): timing.median for students, timing in timed.items()}),
    }


def fit(seconds: dict[int, float]) -> dict[str, float]:
    """The least-squares line through `seconds` by n: a, b, R², and the largest deviation relative to what was seen."""
    networks, measured = np.array(list(seconds)) + 1, np.array(list(seconds.values()))
    slope, intercept = np.polyfit(networks, measured, 1)
    line = intercept + slope * networks
    unexplained = ((measured - line) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    return {
        "a": float(intercept),
        "b": float(slope),
        "r_squared": float(1 - unexplained),
        "largest_deviation": float(np.abs(line / measured - 1).max()),
    }
