"""Images of each class that are kept, and those that are held out for validation."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from ffsd_ray.data.base import Split
from ffsd_ray.data.counter_rng import random_bits
from ffsd_ray.errors import DataError

SplitT = TypeVar("SplitT", bound=Split)


def at_most_per_class(images: SplitT, count: int, seed: int) -> SplitT:
    """Keep at most `count` images of each class, in their order.

    The images of a class are ranked by random bits of (seed, index in the split) and the first ones kept: a smaller
    `count` keeps a part of what a larger one does, and nothing depends on a library's random generator.
    """
    labels = images.labels
    ranked = random_bits(torch.arange(len(labels)), seed).argsort(stable=True)
    ranked = ranked[labels[ranked].argsort(stable=True)]  # class by class
    sizes = labels.bincount()
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[ranked]]
    return images.select(ranked[rank < count].sort().values)


def split(images: SplitT, fraction: float, seed: int, key: str, classes: Sequence[str]) -> tuple[SplitT, SplitT]:
    """Split images into (train, held out), stratified by class.

    `fraction`: share that is held out; `key`: the setting that errors name; `classes`: class names by label.

    Raises:
        DataError: the split would leave a class without an image on one side.
    """
    train, held_out = split_indices(images.labels.tolist(), fraction, seed, key, classes)
    return images.select(torch.from_numpy(train)), images.select(torch.from_numpy(held_out))


def split_indices(
    labels: Sequence[int], fraction: float, seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending int64 indices of the images that `split` keeps and of those that it holds out.

    Raises:
        DataError: see `split`.
    """
    from sklearn.model_selection import train_test_split  # takes a second, and settings are checked without it

    _check_share(labels, fraction, key, classes)
    train, held_out = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
    return np.sort(train), np.sort(held_out)


def held_out_of(images: int, fraction: float) -> int:
    """How many of so many images `split` holds out."""
    return math.ceil(fraction * images)


def _check_share(labels: Sequence[int], fraction: float, key: str, classes: Sequence[str]) -> None:
    """Check that `split` can hold out the fraction of each class: scikit-learn's messages name neither key nor class.

    Raises:
        DataError: see `split`.
    """
    counts = Counter(labels)
    images, held_out = len(labels), held_out_of(len(labels), fraction)
    too_small = [f"{classes[label]} ({count})" for label, count in sorted(counts.items()) if count < 2]
    problem = f"{key} = {fraction:g}: cannot hold out this share of {images} images of {len(counts)} classes"
    if too_small:
        raise DataError(
            f"{problem}: expected 2 images of each class or more, to keep one and hold one out; fewer has "
            f"{', '.join(too_small[:10])}{' ...' if len(too_small) > 10 else ''}"
        )
    if not len(counts) <= held_out <= images - len(counts):
        low, high = len(counts) / images, 1 - len(counts) / images
        raise DataError(
            f"{problem}: it is {held_out} of them, expected one of each class or more on both sides: "
            + (f"a share from {low:.2g} to {high:.2g}" if low <= high else "more images")
        )
