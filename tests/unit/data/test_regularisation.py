"""Mixed and erased images and smoothed labels: what they are, and that they do not depend on how a batch is made."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.data.batches import Batch, TrainBatches
from ffsd_ray.data.counter_rng import random_bits
from ffsd_ray.data.regularisation import AREA, Regularisation
from ffsd_ray.data.resident import Images
from ffsd_ray.methods import METHODS
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.step import Step

from helpers.comparison import assert_same_end
from helpers.forms import FORMS
from helpers.specs import digits_spec
from helpers.tiers import often
from helpers.workers import train_with

IMAGES, CLASSES, SIZE = 64, 64, 12
EVERYTHING: dict[str, Any] = {"label_smoothing": 0.1, "mixup": 0.3, "cutmix": 1.0, "random_erasing": 0.5}


def batches(regularisation: Regularisation, *, rank: int = 0, world_size: int = 1, views: int = 1) -> TrainBatches:
    """Of images that differ in their brightness alone, each a class of its own."""
    pixels = torch.arange(IMAGES, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE).contiguous()
    return TrainBatches(
        Images(pixels, torch.arange(IMAGES)),
        (0.0,) * 3,
        (1 / 255,) * 3,
        crop_padding=2,
        flip=True,
        batch_size=24,
        seed=3,
        rank=rank,
        world_size=world_size,
        views=views,
        regularisation=regularisation,
    )


def brightness(batch: Batch) -> Tensor:
    """[b, S, S], from 0 to 63."""
    [view] = batch.views
    assert torch.equal(view[:, 0], view[:, 1])
    return view[:, 0]


def test_mixup_adds_images_and_labels_in_the_same_shares() -> None:
    for batch in batches(Regularisation(CLASSES, mixup=0.8)).epoch(2):
        assert batch.probabilities is not None
        torch.testing.assert_close(batch.probabilities.sum(dim=1), torch.ones(len(batch.labels)))
        assert (batch.probabilities > 0).sum(dim=1).max() == 2
        expected = batch.probabilities @ torch.arange(CLASSES).float()
        torch.testing.assert_close(brightness(batch), expected[:, None, None].expand(-1, SIZE, SIZE))


def test_cutmix_shares_are_areas() -> None:
    for batch in batches(Regularisation(CLASSES, cutmix=1.0)).epoch(2):
        assert batch.probabilities is not None
        for values, label, targets in zip(brightness(batch), batch.labels, batch.probabilities, strict=True):
            own = (values.round() == label).float().mean()
            assert torch.isclose(targets[label], own) or targets[label] == 1
            [other] = set(values.round().unique().long().tolist()) - {int(label)} or {int(label)}
            assert torch.isclose(targets[other], 1 - own) or other == label
            cut = (values.round() == other).nonzero()
            if other != label and len(cut):
                heights, widths = (cut[:, axis].max() - cut[:, axis].min() + 1 for axis in (0, 1))
                assert len(cut) == heights * widths, "a rectangle"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_are_of_a_beta_distribution(alpha: float) -> None:
    keys = random_bits(torch.arange(20_000), 1)
    own, cut, row, column = Regularisation(10, mixup=alpha, cutmix=alpha).mixing_draws(keys).unbind(dim=1)
    assert own.mean().item() == pytest.approx(0.5, abs=0.02)
    assert own.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert cut.mean().item() == pytest.approx(0.5, abs=0.02)
    for place in (row, column):
        assert place.mean().item() == pytest.approx(0.5, abs=0.02)
        assert 0 <= place.min() < place.max() < 1
    assert Regularisation(10, mixup=alpha).mixing_draws(keys)[:, 1].max() == 0
    assert Regularisation(10, cutmix=alpha).mixing_draws(keys)[:, 1].min() == 1


def test_erased_rectangles() -> None:
    regularisation, size = Regularisation(10, random_erasing=0.4), 32
    draws = regularisation.erasing_draws(random_bits(torch.arange(2_000), 1)[:, None])[:, 0]
    erased = regularisation.erased(torch.ones(2_000, 3, size, size), draws)[:, 0] == 0
    share = erased.float().mean(dim=(1, 2))
    assert (share > 0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    some = share[share > 0]
    assert AREA[0] / 2 < some.min() < 0.04
    assert 0.3 < some.max() < AREA[1] * 1.15, "bounds at pixels' centres"
    for one in erased[share > 0][:200]:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert torch.equal(one, rows[:, None] & columns[None])
        assert (rows.int().diff().abs().sum(), columns.int().diff().abs().sum()) <= (2, 2)


def test_smoothed_labels_are_torchs() -> None:
    logits, labels = torch.randn(6, 10), torch.arange(6)
    targets = Regularisation(10, label_smoothing=0.1).targets(labels)
    torch.testing.assert_close(F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize("settings", [{"mixup": 0.3}, EVERYTHING], ids=["mixup", "everything"])
@pytest.mark.parametrize("views", [1, 2])
def test_batches_depend_on_neither_workers_nor_where_an_epoch_goes_on(settings: dict[str, float], views: int) -> None:
    regularisation = Regularisation(CLASSES, **settings)
    whole = list(batches(regularisation, views=views).epoch(5))
    assert [len(batch.labels) for batch in whole] == [24, 24, 16]
    for first, step in enumerate(whole):
        shares = [next(batches(regularisation, rank=r, world_size=3, views=views).epoch(5, first)) for r in range(3)]
        for name in ("labels", "probabilities"):
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(step, name))
        for view in range(views):
            assert torch.equal(torch.cat([share.views[view] for share in shares]), step.views[view])
    again = list(batches(regularisation, views=views).epoch(6))
    assert not torch.equal(again[0].views[0], whole[0].views[0])
    if views > 1 and regularisation.random_erasing:
        assert not torch.equal(whole[0].views[0], whole[0].views[1])


#: Methods that look at labels otherwise than through a cross-entropy come first.
TRAINED = {"kdcl", "kdcl linear", "ffsd"}


@pytest.mark.parametrize("form", often(TRAINED, {**FORMS, "ffsd": {"name": "ffsd"}, "baseline": {"name": "baseline"}}))
def test_every_method_learns_from_probabilities(form: str) -> None:
    """They fall to what they can fall to, on one batch seen again and again."""
    spec = digits_spec((FORMS | {name: {"name": name} for name in METHODS})[form], lr=0.1, **EVERYTHING)
    method = build_method(spec, CLASSES, SIZE)
    method.begin_epoch(100)
    mixed = batches(Regularisation(CLASSES, **EVERYTHING), views=method.views)
    batch, step = next(mixed.epoch(1)), Step(method, optimisers.build(method, spec.train))
    totals = [sum(term.item() for term in step(batch).terms.values()) for _ in range(8)]
    assert all(torch.tensor(totals).isfinite())
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("workers", often([1], [1, 2], others="slow"))
@pytest.mark.thorough
def test_resumed_is_never_stopped(workers: int, tmp_path: Path) -> None:
    changes = EVERYTHING | {"optimiser": "adamw", "lr": 0.01, "schedule": "cosine", "warmup_epochs": 1}
    changes["augment"] = "trivial"
    spec = digits_spec({"name": "ffsd"}, workers=workers, epochs=4, **changes)
    whole = train_with(spec, tmp_path / "whole")
    train_with(spec, tmp_path / "stopped", stop_after=2)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
    rates = [row["lr"] for row in whole.history()]
    assert rates[0] == pytest.approx(0.01), "the last step of the warm-up"
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_a_cosine_is_torchs() -> None:
    settings = digits_spec({"name": "baseline"}, epochs=4, lr=1.0, schedule="cosine").train
    parameter = torch.nn.Parameter(torch.zeros(()))
    sgd = torch.optim.SGD([parameter], 1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 4 * 5)
    for epoch in range(1, 5):
        for step in range(5):
            factor = optimisers.learning_rate_factor(settings, epoch, step, 5)
            assert factor == pytest.approx(scheduler.get_last_lr()[0])
            sgd.step()
            scheduler.step()
