"""Balanced epochs: as many images of every class, whatever there is of it."""

from pathlib import Path

import torch

from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.data.regularisation import Regularisation
from ffsd_ray.data.resident import Images

from helpers.comparison import assert_same_end
from helpers.specs import digits_spec
from helpers.workers import train_with

#: Images by class.
COUNTS = (50, 10, 3)
IMAGES = sum(COUNTS)


def batches(*, rank: int = 0, world_size: int = 1, balanced: bool = True, mixup: float = 0.0) -> TrainBatches:
    """Of images that are each of a brightness of its own, with a gradient by which crops are told apart."""
    labels = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    pixels = torch.arange(IMAGES)[:, None, None, None] * 3 + torch.arange(12)[None, None, None, :] // 4
    return TrainBatches(
        Images(pixels.expand(-1, 3, 12, 12).to(torch.uint8).contiguous(), labels),
        (0.0,) * 3,
        (1 / 255,) * 3,
        crop_padding=4,
        flip=True,
        batch_size=16,
        seed=3,
        rank=rank,
        world_size=world_size,
        regularisation=Regularisation(len(COUNTS), mixup=mixup) if mixup else None,
        balanced=balanced,
    )


def test_every_class_is_shown_as_often() -> None:
    plain, balanced = batches(balanced=False), batches()
    assert (balanced.steps, balanced.images) == (plain.steps, plain.images)
    for epoch in (1, 2):
        labels = torch.cat([batch.labels for batch in balanced.epoch(epoch)])
        assert labels.bincount().tolist() == [IMAGES // 3] * 3


def test_rare_images_come_again_in_another_crop() -> None:
    shown = [(batch.labels, batch.views[0]) for batch in batches().epoch(1)]
    labels, views = (torch.cat(parts) for parts in zip(*shown, strict=True))
    rare = views[labels == 2]
    brightness = (rare.amax(dim=(1, 2, 3)) // 3).long()
    assert sorted(brightness.bincount()[60:].tolist()) == [7, 7, 7], "each of the three as often"
    assert len({image.numpy().tobytes() for image in rare}) > 3


def test_unequal_epochs_are_as_they_were() -> None:
    """Without the setting, the order and every augmentation are those of torch's permutation."""
    order = torch.cat([batch.labels for batch in batches(balanced=False).epoch(1)])
    assert order.bincount().tolist() == list(COUNTS)


def test_workers_share_the_same_epoch() -> None:
    for mixup in (0.0, 0.3):
        whole = [batch.views[0] for batch in batches(mixup=mixup).epoch(2, first_step=1)]
        shares = [list(batches(rank=rank, world_size=3, mixup=mixup).epoch(2)) for rank in range(3)]
        joined = [torch.cat([part.views[0] for part in parts]) for parts in zip(*shares, strict=True)]
        assert all(torch.equal(one, other) for one, other in zip(whole, joined[1:], strict=True))


def test_a_trial_goes_on_where_it_stopped(tmp_path: Path) -> None:
    spec = digits_spec({"name": "baseline"}, balanced=True, epochs=2)
    whole = train_with(spec, tmp_path / "whole")
    train_with(spec, tmp_path / "stopped", stop_after=1)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
