"""TrivialAugment: torchvision's pixels for every draw, in any batch, of images in memory and of streams."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ffsd_ray import data
from ffsd_ray.data import Images
from ffsd_ray.data.base import Split
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.data.counter_rng import random_bits
from ffsd_ray.data.trivial_augment import DRAWS, LEVELS, OPERATIONS, TrivialAugment, operation

from helpers.images import data_settings
from helpers.specs import digits_spec

SIZE, CPU = 19, torch.device("cpu")


def pictures(number: int, size: int = SIZE) -> Tensor:
    """Noise over a gradient, of different brightness, the first of one colour: uint8 [N, 3, S, S]."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 120, (number, 3, size, size), generator=generator)
    slope = torch.arange(size) * 80 // size
    images = (noise + slope + torch.arange(number)[:, None, None, None] % 56).to(torch.uint8)
    images[0] = 77
    return images


def by_torchvision(image: Tensor, draw: int) -> Tensor:
    """One image [3, S, S] changed by torchvision."""
    transform, (name, magnitude) = v2.TrivialAugmentWide(), operation(draw)
    changed: Tensor = transform._apply_image_or_video_transform(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=transform._fill
    )
    return changed


def test_draws_are_torchvisions() -> None:
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert tuple(space) == OPERATIONS
    for number, (name, (strengths, signed)) in enumerate(space.items()):
        strengths = strengths(LEVELS, SIZE, SIZE)
        for level, opposite in product(range(LEVELS), (0, 1)):
            found = operation((number * LEVELS + level) * 2 + opposite)
            if strengths is None:
                assert found[0] == name
            else:
                assert found == (name, float(strengths[level]) * (-1 if signed and opposite else 1))


def test_pixels_are_torchvisions() -> None:
    images = pictures(DRAWS)
    found = TrivialAugment(SIZE, CPU)(images, torch.arange(DRAWS))
    wrong = {
        operation(draw) for draw in range(DRAWS) if not torch.equal(found[draw], by_torchvision(images[draw], draw))
    }
    assert wrong == set()
    one_colour = TrivialAugment(SIZE, CPU)(images[:1].expand(DRAWS, -1, -1, -1), torch.arange(DRAWS))
    assert all(torch.equal(one_colour[draw], by_torchvision(images[0], draw)) for draw in range(0, DRAWS, 7))


def test_an_image_does_not_depend_on_the_others() -> None:
    images, draws = pictures(40), TrivialAugment.draws(random_bits(torch.arange(40), 3)[:, None])[:, 0]
    augment = TrivialAugment(SIZE, CPU)
    whole = augment(images, draws)
    for start, stop in ((0, 1), (1, 4), (4, 40)):
        assert torch.equal(augment(images[start:stop], draws[start:stop]), whole[start:stop])


def test_draws_are_uniform() -> None:
    draws = TrivialAugment.draws(random_bits(torch.arange(86_800), 5)[:, None])
    counts = draws.flatten().bincount(minlength=DRAWS)
    assert len(counts) == DRAWS
    assert counts.min() > 50
    assert counts.max() < 150


def streamed(tmp_path: Path) -> Split:
    for split, (index, image) in product(("train", "test"), enumerate(pictures(6, 30))):
        file = tmp_path / split / ("a", "b")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    settings = data_settings("image_folder", root=str(tmp_path), image_size=SIZE, stream=True, loader_processes=0)
    return data.load(settings).train


@pytest.mark.parametrize("kind", ["in memory", "stream"])
def test_batches_are_augmented_after_crop_and_flip(kind: str, tmp_path: Path) -> None:
    """The pixels of an epoch without it, changed by torchvision, are those with it, for either kind of split."""
    split = Images(pictures(6), torch.arange(6) % 2) if kind == "in memory" else streamed(tmp_path)
    common: dict[str, Any] = {"crop_padding": 4, "flip": True, "batch_size": 4, "seed": 3, "views": 2}
    plain, trivial = (
        TrainBatches(split, (0.0,) * 3, (1 / 255,) * 3, **common, trivial_augment=on) for on in (False, True)
    )
    order = torch.randperm(6, generator=torch.Generator().manual_seed(int(random_bits(torch.tensor(3), 2))))
    for step, (before, after) in enumerate(zip(list(plain.epoch(2)), list(trivial.epoch(2)), strict=True)):
        for view in range(2):
            keys = random_bits(order[4 * step : 4 * step + 4], 3, 2, view)
            for image, draw, found in zip(
                before.views[view], TrivialAugment.draws(keys[:, None])[:, 0].tolist(), after.views[view], strict=True
            ):
                expected = by_torchvision(image.round().to(torch.uint8), draw)
                assert torch.equal(found.round().to(torch.uint8), expected)


def test_it_is_part_of_a_trials_identity() -> None:
    plain, trivial = digits_spec({"name": "ffsd"}), digits_spec({"name": "ffsd"}, augment="trivial")
    assert plain.identity() != trivial.identity()
