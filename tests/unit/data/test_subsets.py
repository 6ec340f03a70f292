"""Parts of a data set: so many images of each class, and CIFAR's images at a smaller size."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, Images, load
from ffsd_ray.data.streaming import Stream
from ffsd_ray.data.subsets import at_most_per_class
from ffsd_ray.errors import DataError

from helpers.images import assert_same, data_settings, images_of, png, write_parquet
from helpers.specs import digits_spec


def digits(**settings: Any) -> Dataset:
    return load(data_settings("digits", image_size=8, **settings))


def images_in(split: Any) -> set[bytes]:
    return {image.numpy().tobytes() for image in images_of(split)}


# ---- so many images of each class


def test_so_many_images_of_each_class() -> None:
    whole, part = digits(), digits(train_per_class=20, test_per_class=7)
    assert part.train.labels.bincount().tolist() == [20] * 10
    assert part.test.labels.bincount().tolist() == [7] * 10
    assert images_in(part.train) <= images_in(whole.train)
    assert images_in(part.test) <= images_in(whole.test)
    assert (part.mean, part.std, part.classes, part.notes) == (whole.mean, whole.std, whole.classes, ())


def test_images_keep_their_order_and_their_labels() -> None:
    whole, part = digits(), digits(train_per_class=20)
    places = {image.numpy().tobytes(): index for index, image in enumerate(images_of(whole.train))}
    found = torch.tensor([places[image.numpy().tobytes()] for image in images_of(part.train)])
    assert bool((found.diff() > 0).all())
    assert torch.equal(whole.train.labels[found], part.train.labels)


def test_a_choice_is_a_function_of_its_own_seed() -> None:
    first, again, other = (digits(train_per_class=20, subset_seed=seed) for seed in (0, 0, 1))
    assert_same(first, again)
    assert not torch.equal(images_of(first.train), images_of(other.train))
    # Recorded: a choice must not change with a version of a library, or results could not be compared.
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    chosen = at_most_per_class(Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), labels), 2, 0)
    assert chosen.images.flatten().tolist() == [0, 3, 4, 7]


def test_a_smaller_choice_is_part_of_a_larger_one() -> None:
    small, large = digits(train_per_class=5), digits(train_per_class=50)
    assert images_in(small.train) < images_in(large.train)


def test_every_seed_of_a_trial_trains_on_the_same_images() -> None:
    settings = {"train_per_class": 5, "test_per_class": 5}
    one, other = (digits_spec({"name": "baseline"}, seed=seed, data=settings) for seed in (0, 1))
    assert_same(load(one.data), load(other.data))
    assert one.configuration() == other.configuration()


def test_a_class_with_fewer_images_keeps_all_and_is_told() -> None:
    part = digits(train_per_class=145, test_per_class=30)
    assert part.train.labels.bincount().tolist() == [142, 145, 142, 145, 145, 145, 145, 143, 139, 144]
    assert part.notes == (
        "data.train_per_class = 145: fewer train images of 0 (142), 2 (142), 7 (143), 8 (139), 9 (144).",
    )


def test_validation_is_held_out_of_what_is_left() -> None:
    part = digits(train_per_class=20, validation=0.25)
    assert part.val is not None
    assert part.train.labels.bincount().tolist() == [15] * 10
    assert part.val.labels.bincount().tolist() == [5] * 10
    assert images_in(part.train) | images_in(part.val) == images_in(digits(train_per_class=20).train)
    with pytest.raises(DataError, match=r"data.validation = 0.25: cannot hold out .* 2 images of each class"):
        digits(train_per_class=1, validation=0.25)


def test_digits_with_a_larger_test_split() -> None:
    few, default = digits(test_share=0.9), digits()
    assert (len(few.train), len(few.test), len(default.test)) == (179, 1618, 360)
    assert set(few.train.labels.bincount().tolist()) <= {17, 18, 19}
    assert not images_in(few.train) & images_in(few.test)
    assert data_settings("digits", test_share=0.9, train_per_class=18).known_train_images is None, "nobody has counted"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train_per_class": 20},
        {"train_per_class": 145},
        {"train_per_class": 9999},
        {"test_share": 0.9},
        {"test_share": 0.9, "train_per_class": 17},
    ],
)
def test_the_number_of_training_images_is_known_before(settings: dict[str, float]) -> None:
    assert data_settings("digits", **settings).known_train_images == len(digits(**settings).train)


@pytest.mark.parametrize(("name", "images", "limited"), [("cifar10", 50_000, 3000), ("cifar100", 50_000, 30_000)])
def test_cifars_number_of_training_images(name: str, images: int, limited: int) -> None:
    assert data_settings(name).known_train_images == images
    assert data_settings(name, train_per_class=300).known_train_images == limited
    assert data_settings(name, train_per_class=9999).known_train_images == images


def test_a_part_is_another_trial() -> None:
    parts = [{}, {"train_per_class": 5}, {"test_per_class": 5}, {"train_per_class": 5, "subset_seed": 1}]
    assert len({digits_spec({"name": "baseline"}, data=part).identity() for part in parts}) == len(parts)


# ---- sources whose images are files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Settings for 30 images of each of two classes, half as many for testing, and a validation file of 4 images."""
    whole = digits()
    for name, count in (("train", 30), ("test", 15), ("val", 2)):
        chosen = torch.cat([(whole.train.labels == label).nonzero().flatten()[:count] for label in (0, 1)])
        contents = [png(image) for image in images_of(whole.train)[chosen]]
        write_parquet(tmp_path / f"{name}.parquet", contents, whole.train.labels[chosen].tolist())
    found: dict[str, Any] = {name: str(tmp_path / f"{name}.parquet") for name in ("train", "test")}
    return {**found, "cache": str(tmp_path / "cache"), "crop_padding": 2}


def test_of_parquet(files: dict[str, Any], tmp_path: Path) -> None:
    """The cache holds the whole data set, whatever part of it is asked for first."""
    part = load(data_settings("parquet", **files, train_per_class=10, test_per_class=3))
    assert (part.train.labels.bincount().tolist(), part.test.labels.bincount().tolist()) == ([10, 10], [3, 3])
    whole = load(data_settings("parquet", **files))
    assert (len(whole.train), len(whole.test)) == (60, 30)
    assert part.mean == whole.mean
    beside = load(data_settings("parquet", **files, train_per_class=10, val=str(tmp_path / "val.parquet")))
    assert beside.val is not None
    assert len(beside.val) == 4
    assert torch.equal(images_of(beside.train), images_of(part.train))


def test_of_a_stream(files: dict[str, Any]) -> None:
    """The same images as of those in memory."""
    settings = files | {"crop_padding": 4, "image_size": 8, "train_per_class": 10, "loader_processes": 0}
    part = load(data_settings("parquet", **(settings | {"stream": True})))
    assert isinstance(part.train, Stream)
    resident = load(data_settings("parquet", **settings))
    assert torch.equal(part.train.labels, resident.train.labels)
    [(images, _)] = part.train.unaugmented([slice(0, 20)])
    assert images.shape == images_of(resident.train).shape


def test_of_class_folders(tmp_path: Path) -> None:
    whole = digits()
    for label in (3, 4):
        folder = tmp_path / str(label)
        folder.mkdir()
        for index, image in enumerate(images_of(whole.train)[whole.train.labels == label][:20]):
            (folder / f"{index}.png").write_bytes(png(image))
    settings = {"root": str(tmp_path), "image_size": 8, "cache": str(tmp_path / "cache")}
    part = load(data_settings("image_folder", **settings, train_per_class=6, test_per_class=2))
    assert (part.train.labels.bincount().tolist(), part.test.labels.bincount().tolist()) == ([6, 6], [2, 2])


# ---- CIFAR


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's folder with 20 random images in each of its files, of which no checksum is asked."""
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: setattr(self, "classes", list("abcdefghij")))
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, _ in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list):
        content = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10), *range(10)]}
        (folder / name).write_bytes(pickle.dumps(content))
    return tmp_path


def test_cifar_scaled_down_is_what_parquet_makes_of_it(cifar: Path) -> None:
    stored = load(data_settings("cifar10", root=str(cifar)))
    assert (stored.image_size, len(stored.train), len(stored.test)) == (32, 100, 20)
    settings: dict[str, Any] = {"cache": str(cifar / "cache"), "image_size": 16, "train_per_class": 3}
    for name, images in (("train", stored.train), ("test", stored.test)):
        contents = [png(image) for image in images_of(images)]
        settings[name] = str(write_parquet(cifar / f"{name}.parquet", contents, images.labels.tolist()))
    scaled = load(data_settings("cifar10", root=str(cifar), image_size=16, train_per_class=3))
    assert scaled.image_size == data_settings("cifar10", image_size=16).known_size == 16
    copies = load(data_settings("parquet", **settings))
    for part in ("train", "test"):
        assert torch.equal(images_of(getattr(scaled, part)), images_of(getattr(copies, part)))
        assert torch.equal(getattr(scaled, part).labels, getattr(copies, part).labels)


def test_an_area_is_averaged(cifar: Path) -> None:
    """Antialiased: a pixel of the smaller image is a mean over a neighbourhood, so noise is smoothed."""
    stored, scaled = (load(data_settings("cifar10", root=str(cifar), image_size=size)) for size in (32, 16))
    before, after = (images_of(dataset.train).float() for dataset in (stored, scaled))
    assert after.mean().item() == pytest.approx(before.mean().item(), rel=0.01)
    assert after.std().item() < 0.6 * before.std().item()


def test_a_trial_trains_at_the_smaller_size(cifar: Path) -> None:
    spec = digits_spec({"name": "ffsd"}).model_dump()
    spec["data"] = {"name": "cifar10", "root": str(cifar), "image_size": 16, "train_per_class": 200}
    assert TrialSpec.model_validate(spec).data.known_train_images == 2000
