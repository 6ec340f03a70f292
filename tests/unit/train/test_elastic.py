"""Workers that come and go: inside an epoch, and with another number of them than before."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.base import BatchInputs
from ffsd_ray.data.batches import Batch, TrainBatches
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.elastic import BatchParts, batch_parts, ddp_with_local_buffers
from ffsd_ray.train.execution import Executor

from helpers.comparison import assert_equal, assert_same_end
from helpers.specs import digits_spec
from helpers.workers import run_workers, train_with

STEPS, PARTS = 20, 4


def elastic(parts: int = PARTS, **train: Any) -> TrialSpec:
    spec = digits_spec({"name": "ffsd"}, **train).model_dump()
    spec["scale"]["workers"] = {"min": 1, "max": parts}
    return TrialSpec.model_validate(spec)


@pytest.mark.parametrize(("workers", "parts"), [(1, 4), (3, 4), (4, 4), (2, 5)])
def test_every_part_has_one_worker(workers: int, parts: int) -> None:
    shares = [batch_parts(rank, workers, parts) for rank in range(workers)]
    assert [part for share in shares for part in share] == list(range(parts))
    assert all(shares)


class _Float64(TrainBatches):
    def batch(self, inputs: BatchInputs, weight: float = 1.0) -> Batch:
        batch = super().batch(inputs, weight)
        return batch._replace(views=[view.double() for view in batch.views])


def _steps(rank: int, workers: int, folder: Path, first: int, last: int) -> None:
    """Train through these steps in float64, from and to a state in `folder`; each step's loss is appended there."""
    spec = elastic(batch_size=33)
    dataset = data.load(spec.data)
    method = build_method(spec, dataset.num_classes, dataset.image_size).double()
    method.begin_epoch(1)
    built = optimisers.build(method, spec.train)
    saved, losses = folder / "state.pt", folder / "losses.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        method.load_state_dict(state["method"])
        built.load(state["optimisers"])
    own = batch_parts(rank, workers, PARTS)
    batches = [
        _Float64(
            dataset.train, dataset.mean, dataset.std, crop_padding=2, flip=False, batch_size=33, seed=0,
            rank=part, world_size=PARTS,
        )
        for part in own
    ]  # fmt: skip
    group = method if workers == 1 else ddp_with_local_buffers(method)
    parts = BatchParts(group, own, workers, PARTS)
    executor = Executor(method, group, built, batches[0], "eager", workers=PARTS, parts=parts)
    seen = []
    for _, drawn in zip(
        range(last - first), zip(*(each.inputs(1, first) for each in batches), strict=True), strict=False
    ):
        found = executor.train(drawn)
        total = torch.stack(
            [
                torch.stack(list(each.terms.values())).sum().detach() * w / PARTS
                for (each, _), (_, w) in zip(found, drawn, strict=True)
            ]
        ).sum()
        if workers > 1:
            dist.all_reduce(total)
        seen.append(total.item())
    if rank == 0:
        before = torch.load(losses, weights_only=True) if losses.exists() else []
        torch.save(before + seen, losses)
        torch.save({"method": method.state_dict(), "optimisers": built.state()}, saved)


@pytest.mark.thorough
def test_what_is_computed_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """20 steps with two workers, and with two, one, two."""
    steady, changing = tmp_path / "steady", tmp_path / "changing"
    for folder in (steady, changing):
        folder.mkdir()
    run_workers(2, _steps, steady, 0, STEPS)
    run_workers(2, _steps, changing, 0, 7)
    _steps(0, 1, changing, 7, 14)
    run_workers(2, _steps, changing, 14, STEPS)
    expected, found = (torch.load(folder / "losses.pt", weights_only=True) for folder in (steady, changing))
    assert len(expected) == len(found) == STEPS
    difference = max(abs(a - b) / abs(a) for a, b in zip(expected, found, strict=True))
    print(f"largest relative difference of a loss: {difference:.1e}")
    assert difference < 1e-5
    first, second = (torch.load(folder / "state.pt", weights_only=True)["method"] for folder in (steady, changing))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_trial_goes_on_with_fewer_workers_and_says_so(tmp_path: Path) -> None:
    spec = elastic(2, epochs=3, data={"validation": 0.2})
    train_with(spec, tmp_path / "a", workers=2, stop_after=2)
    records = train_with(spec, tmp_path / "a", workers=1)
    assert [row["workers"] for row in records.history()] == [2, 2, 1]
    whole = train_with(spec, tmp_path / "b", workers=2)
    assert [row["workers"] for row in whole.history()] == [2, 2, 2]
    for row, other in zip(records.history(), whole.history(), strict=True):
        assert row["term/leader/ce"] == pytest.approx(other["term/leader/ce"], rel=1e-2)
    assert records.history()[:2] == [
        {**row, "seconds": own["seconds"], "images_per_second": own["images_per_second"]}
        for row, own in zip(whole.history()[:2], records.history(), strict=False)
    ]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_stopped_inside_an_epoch_is_never_stopped(workers: int, tmp_path: Path) -> None:
    """A notice within the first 10 steps of an epoch."""
    spec = digits_spec({"name": "ffsd"}, workers=workers, epochs=2, steps_per_epoch=22, ema=0.9)
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", noticed=True)
    assert stopped.history() == []
    assert stopped.store.child("checkpoints").names() == ["epoch-000001-step-000010.pt"]
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
    assert stopped.store.child("checkpoints").names() == ["epoch-000002.pt"]


def test_checkpoints_every_few_steps(tmp_path: Path) -> None:
    spec = digits_spec({"name": "baseline"}, epochs=2, steps_per_epoch=5, checkpoint_steps=2)
    whole = train_with(digits_spec({"name": "baseline"}, epochs=2, steps_per_epoch=5), tmp_path / "whole")
    records = train_with(spec, tmp_path / "a", stop_after=1)
    assert records.store.child("checkpoints").names() == ["epoch-000001.pt"]
    resumed = train_with(spec, tmp_path / "a")
    assert_equal(whole.checkpoints.latest(), resumed.checkpoints.latest())
    assert spec.identity() == digits_spec({"name": "baseline"}, epochs=2, steps_per_epoch=5).identity()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_worker_may_have_nothing_left_of_an_epoch(tmp_path: Path) -> None:
    """1,291 images in batches of 129: the eleventh holds one, so that of two workers the second goes on with none."""
    data = {"validation": 0.1013}
    spec = digits_spec({"name": "baseline"}, workers=2, data=data, batch_size=129, epochs=1, steps_per_epoch=None)
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", noticed=True)
    assert stopped.store.child("checkpoints").names() == ["epoch-000001-step-000010.pt"]
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
