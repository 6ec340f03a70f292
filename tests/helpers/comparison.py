"""Comparing two trainings of a trial bit for bit."""

from typing import Any

import torch

from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow

#: Columns that measure time, which differ between equal runs.
TIMES = {"seconds", "images_per_second"}


def measured(rows: list[HistoryRow]) -> list[HistoryRow]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def assert_equal(a: object, b: object, where: str = "") -> None:
    """Bit for bit, through nested lists and dictionaries."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a.keys() - TIMES:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{index}")
    else:
        assert a == b, where


def latest_state(records: TrialRecords) -> dict[str, Any]:
    """The content of the latest checkpoint, which must be there."""
    state = records.checkpoints.latest()
    assert state is not None
    return state


def assert_same_training(a: TrialRecords, b: TrialRecords) -> None:
    """Weights, both optimisers, batch-norm statistics, best so far and rows are the same."""
    assert_equal(a.checkpoints.latest(), b.checkpoints.latest())
    assert measured(a.history()) == measured(b.history())


def assert_same_end(a: TrialRecords, b: TrialRecords) -> None:
    """The training is the same, and so are the exported weights with their cards, which have the trial's settings."""
    assert_same_training(a, b)
    for name in ("model_best.safetensors", "model_last.safetensors"):
        assert a.store.read(name) == b.store.read(name)
