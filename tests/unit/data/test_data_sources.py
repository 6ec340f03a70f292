"""The sources of images: what they read, what they refuse, and that they decode once."""

import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import center_crop, resize

from ffsd_ray.data import SOURCES, Dataset, DataSettings, Images, load
from ffsd_ray.data.cifar import Cifar100
from ffsd_ray.data.picture import decode
from ffsd_ray.errors import DataAway, DataError

from helpers.images import assert_same, data_settings, images_of, png, write_parquet


@pytest.fixture(scope="module")
def digits() -> Images:
    split = data_settings("digits", image_size=12).read(progress=False).train
    assert isinstance(split, Images)
    return split


@pytest.fixture
def files(tmp_path: Path, digits: Images) -> dict[str, Any]:
    """Settings for train.parquet (40 digits) and test.parquet (20 digits) in `tmp_path`, cached there too."""
    for name, part in (("train", slice(0, 40)), ("test", slice(40, 60))):
        contents = [png(image) for image in digits.images[part]]
        write_parquet(tmp_path / f"{name}.parquet", contents, digits.labels[part].tolist())
    return settings_of(tmp_path)


def settings_of(folder: Path) -> dict[str, Any]:
    return {
        "train": str(folder / "train.parquet"),
        "test": str(folder / "test.parquet"),
        "cache": str(folder / "cache"),
    }


def read(**settings: Any) -> Dataset:
    return load(data_settings("parquet", **settings))


def assert_sound(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.test):
        images = images_of(split)
        assert images.dtype == torch.uint8
        assert images.shape == (len(split), 3, dataset.image_size, dataset.image_size)
        assert images.is_contiguous()
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
    scaled = images_of(dataset.train).double() / 255
    assert dataset.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), rel=1e-9)
    assert dataset.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), rel=1e-9)


# ---- the registry and the settings


def test_each_source_is_found_by_its_name() -> None:
    assert set(SOURCES) >= {"digits", "cifar10", "cifar100", "parquet", "image_folder"}
    for name, settings in SOURCES.items():
        assert settings.model_fields["name"].default == name
        assert settings.__doc__


@pytest.mark.parametrize("name", ["digits", "cifar10", "parquet"])
def test_padding_as_large_as_the_images_is_refused(name: str) -> None:
    paths: dict[str, Any] = {"train": "a", "test": "b", "image_size": 32} if name == "parquet" else {}
    with pytest.raises(ValidationError, match=r"crop_padding 32 must be smaller than the images"):
        data_settings(name, crop_padding=32, **paths)


def test_where_files_lie_is_no_part_of_a_trials_identity() -> None:
    for name, fields in {
        "cifar100": {"cache", "root", "download"},
        "parquet": {"cache", "fingerprint", "loader_processes", "max_skipped"},
    }.items():
        extras = {field: info.json_schema_extra for field, info in SOURCES[name].model_fields.items()}
        found = {field for field, extra in extras.items() if isinstance(extra, dict) and extra.get("identity") is False}
        assert found == fields


# ---- digits


@pytest.mark.parametrize("size", [8, 16, 32])
def test_digits_at_any_size(size: int) -> None:
    dataset = load(data_settings("digits", image_size=size))
    assert_sound(dataset)
    assert dataset.image_size == size
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (1437, 360, 10)
    assert dataset.val is None
    assert int(dataset.test.labels.bincount().min()) >= 34


def test_digits_are_scikit_learns(digits: Images) -> None:
    dataset = load(data_settings("digits", image_size=8))
    source = load_digits()
    pixels = (torch.from_numpy(source.images).float() * 255 / 16).round().to(torch.uint8)
    expected = sorted(
        (label, *image.flatten().tolist()) for label, image in zip(source.target.tolist(), pixels, strict=True)
    )
    both = [*zip(dataset.train.labels.tolist(), images_of(dataset.train), strict=True)]
    both += zip(dataset.test.labels.tolist(), images_of(dataset.test), strict=True)
    assert all(torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]) for _, image in both)
    assert sorted((label, *image[0].flatten().tolist()) for label, image in both) == expected


# ---- the validation split


def test_validation_is_stratified_and_follows_its_seed() -> None:
    whole = load(data_settings("digits"))
    first, again, other = (load(data_settings("digits", validation=0.25, validation_seed=seed)) for seed in (0, 0, 1))
    assert first.val is not None
    assert other.val is not None
    assert_same(first, again)
    assert not torch.equal(images_of(first.val), images_of(other.val))
    assert torch.equal(images_of(first.test), images_of(whole.test))
    assert len(first.val) == 360
    counts = whole.train.labels.bincount()
    assert torch.equal(first.val.labels.bincount() + first.train.labels.bincount(), counts)
    assert float((first.val.labels.bincount() / counts - 0.25).abs().max()) < 0.01
    assert first.mean == whole.mean  # normalisation does not change with the split


def test_a_validation_split_that_cannot_be_made_is_an_error(files: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"data.validation = 0.01: cannot hold out this share of 40 images"):
        read(**files, validation=0.01)


# ---- CIFAR


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("root", ["missing", "~/missing"])
def test_missing_cifar_files(name: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"data.root: .*missing: no {name} there .*`data.download: true`") as caught:
        load(data_settings(name, root=root))
    assert "~" not in str(caught.value)


def test_cifar_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which another try may mend, so that a worker is started again; missing files none can."""
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataAway, match=r"data.download: cifar10 cannot be fetched: .*refused"):
        load(data_settings("cifar10", root=str(tmp_path), download=True))


def test_cifar_is_known_before_it_is_read() -> None:
    known = {
        name: (data_settings(name).known_classes, data_settings(name).known_size) for name in ("cifar10", "cifar100")
    }
    assert known == {"cifar10": (10, 32), "cifar100": (100, 32)}
    assert Cifar100.statistics == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


# ---- Parquet


def test_parquet_gives_the_images_in_order(files: dict[str, Any], digits: Images) -> None:
    dataset = read(**files)
    assert_sound(dataset)
    assert torch.equal(images_of(dataset.train), digits.images[:40])
    assert torch.equal(dataset.train.labels, digits.labels[:40])
    assert torch.equal(images_of(dataset.test), digits.images[40:60])
    assert dataset.classes == tuple("0123456789")


HUGGING_FACE = json.dumps({"info": {"features": {"fine_label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}})


@pytest.mark.parametrize(
    ("columns", "metadata", "classes"),
    [
        (("image", "fine_label"), {"huggingface": HUGGING_FACE}, ("cat", "dog")),
        (("img", "label"), {"classes": "n01,n02"}, ("n01", "n02")),
        (("image", "label"), None, ("0", "1")),
    ],
)
def test_column_and_class_names(
    columns: tuple[str, str], metadata: dict[str, str] | None, classes: tuple[str, ...], tmp_path: Path, digits: Images
) -> None:
    for name in ("train", "test"):
        contents = [png(image) for image in digits.images[:4]]
        write_parquet(tmp_path / f"{name}.parquet", contents, [0, 1, 1, 0], columns=columns, metadata=metadata)
    assert read(**settings_of(tmp_path)).classes == classes


def test_a_pattern_reads_its_files_in_order(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(**files)
    table = pq.read_table(files["train"])
    for part in range(4):
        pq.write_table(table.slice(part * 10, 10), tmp_path / f"train-{part}.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same(read(**files | {"train": "~/train-*.parquet"}), whole)


def test_image_size_scales_and_cuts_out_the_centre(tmp_path: Path, digits: Images) -> None:
    images = [digits.images[0], digits.images[1][:, :, :9], digits.images[2].repeat(1, 2, 3)]
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [png(image) for image in images], [0, 1, 2])
    dataset = read(**settings_of(tmp_path), image_size=9)
    assert_sound(dataset)
    for image, got in zip(images, images_of(dataset.train), strict=True):
        assert torch.equal(got, center_crop(resize(image, [9], antialias=True), [9, 9]))


def test_grey_images_become_rgb(tmp_path: Path, digits: Images) -> None:
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [png(image[:1]) for image in digits.images[:3]], [0, 1, 2])
    assert torch.equal(images_of(read(**settings_of(tmp_path)).train), digits.images[:3])


Damage = Callable[[list[Any], list[Any]], dict[str, Any] | None]


def damage(row: int, *, content: Any = ..., label: Any = ...) -> Damage:
    def apply(contents: list[Any], labels: list[Any]) -> None:
        if content is not ...:
            contents[row] = content(contents[row]) if callable(content) else content
        if label is not ...:
            labels[row] = label

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            damage(17, content=b"no image"),
            r"train.parquet, row 17 \(from 0\): expected a whole picture .*it is text, not a picture",
        ),
        (damage(9, content=lambda whole: whole[:-40]), r"train.parquet, row 9 \(from 0\): expected a whole picture"),
        (damage(0, content=b""), r"train.parquet, row 0 \(from 0\): expected a whole picture"),
        (
            damage(3, content=None),
            r"train.parquet, row 3 \(from 0\): expected a whole picture .*it is empty, it holds no bytes",
        ),
        (damage(21, label=None), r"train.parquet, row 21 \(from 0\): label is null, expected a class number"),
        (damage(8, label=-1), r"train.parquet, row 8 \(from 0\): label is -1, expected a class number from 0"),
        (
            damage(8, label=10**9),
            r"train.parquet, row 8 \(from 0\): label is 1000000000, expected a class number from 0",
        ),
        (
            damage(5, content=png(torch.zeros(3, 16, 16, dtype=torch.uint8))),
            r"train.parquet, row 5 \(from 0\): the image is 16×16 pixels, expected 12×12.*`data.image_size`",
        ),
        (
            damage(0, content=png(torch.zeros(3, 12, 16, dtype=torch.uint8))),
            r"train.parquet, row 0 \(from 0\): the image is 12×16 pixels, expected 16×16: square",
        ),
        (
            lambda contents, labels: {"columns": ("picture", "label")},
            r"train.parquet: no column img or image; .* picture",
        ),
        (
            lambda contents, labels: {"columns": ("img", "y")},
            r"train.parquet: no column label or fine_label; .* img, y",
        ),
        (
            lambda contents, labels: labels.__setitem__(slice(None), ["x"] * 40),
            r"column label is string, expected integers",
        ),
        (lambda contents, labels: {"metadata": {"classes": "a,b"}}, r"train.parquet, row \d+ .* from 0 to 1$"),
    ],
)
def test_spoilt_rows_are_named(spoil: Damage, message: str, files: dict[str, Any]) -> None:
    table = pq.read_table(files["train"])
    contents, labels = table["img"].combine_chunks().field("bytes").to_pylist(), table["label"].to_pylist()
    settings = spoil(contents, labels) or {}
    write_parquet(Path(files["train"]), contents, labels, **settings)
    with pytest.raises(DataError, match=message):
        read(**files)


def test_other_spoilt_files(files: dict[str, Any], tmp_path: Path, digits: Images) -> None:
    contents = [png(image) for image in digits.images[:2]]
    (tmp_path / "text.parquet").write_text("no Parquet")
    write_parquet(tmp_path / "beyond.parquet", contents, [0, 10])
    write_parquet(tmp_path / "cats.parquet", contents, [0, 1], metadata={"classes": "cat,dog"})
    write_parquet(tmp_path / "dogs.parquet", contents, [0, 1], metadata={"classes": "dog,cat"})
    pq.write_table(pa.table({"img": contents, "label": [0, 1]}), tmp_path / "flat.parquet")
    pq.write_table(pq.read_table(files["test"]).slice(0, 0), tmp_path / "empty.parquet")
    for names, message in (
        ({"train": "missing.parquet"}, r"data.train: .*missing.parquet: no such file"),
        ({"test": "missing-*.parquet"}, r"data.test: .*missing-\*.parquet: no such file"),
        ({"train": "."}, r"data.train: .*: no such file, expected a Parquet file or a pattern"),
        ({"train": "empty.parquet"}, r"empty.parquet: no rows, expected at least one image"),
        ({"train": "text.parquet"}, r"text.parquet: expected a Parquet file"),
        (
            {"train": "flat.parquet"},
            r"flat.parquet: column img is binary, expected struct<bytes: binary, path: string>",
        ),
        (
            {"test": "beyond.parquet"},
            r"beyond.parquet, row 1 \(from 0\): label is 10, expected a class number from 0 to 9",
        ),
        (
            {"train": "cats.parquet", "test": "dogs.parquet"},
            r"dogs.parquet: .*other classes than .*cats.parquet: dog, cat",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(**files | {key: str(tmp_path / name) for key, name in names.items()})


def test_padding_is_checked_against_images_of_unknown_size(files: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"data.crop_padding: crop_padding 12 must be smaller .* 12×12"):
        read(**files, crop_padding=12)


class Wrong(DataSettings):
    """A source with labels out of range."""

    name: Literal["wrong"] = "wrong"

    @property
    def known_classes(self) -> None:
        return None

    @property
    def known_size(self) -> None:
        return None

    def read(self, progress: bool) -> Dataset:
        images = Images(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2]))
        return Dataset(images, None, images, ("a", "b"), (0.0,) * 3, (1.0,) * 3)


def test_labels_of_any_source_are_checked() -> None:
    with pytest.raises(DataError, match=r"wrong: train image 2 \(from 0\) has label 2, expected 0 to 1"):
        load(Wrong())


# ---- the cache


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no picture can be decoded."""

    def refused(data: bytes, size: int | None) -> Tensor:
        raise AssertionError("decoded again")

    monkeypatch.setattr("ffsd_ray.data.decode.decode", refused)


def test_a_second_reading_decodes_nothing(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(**files)
    no_decoding(monkeypatch)
    assert_same(read(**files, validation=0.0, crop_padding=3, flip=False), first)
    with pytest.raises(AssertionError, match="decoded again"):  # another size is another set of pixels
        read(**files, image_size=16)


def test_changed_files_are_read_anew(files: dict[str, Any], digits: Images) -> None:
    read(**files)
    write_parquet(
        Path(files["train"]), [png(image) for image in digits.images[100:130]], digits.labels[100:130].tolist()
    )
    assert torch.equal(images_of(read(**files).train), digits.images[100:130])


def test_splits_exchanged_are_not_taken_from_the_cache(files: dict[str, Any]) -> None:
    one = read(**files)
    other = read(train=files["test"], test=files["train"], cache=files["cache"])
    assert torch.equal(images_of(one.train), images_of(other.test))


@pytest.mark.parametrize("how", ["emptied", "cut", "a bit turned", "other content"])
def test_a_damaged_cache_is_made_anew(how: str, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(**files)
    (cached,) = Path(files["cache"]).glob("*.safetensors")
    content = bytearray(cached.read_bytes())
    if how == "a bit turned":
        content[-100] ^= 1
    damaged = {"emptied": b"", "cut": bytes(content[:-7]), "other content": b"x" * 99}
    cached.write_bytes(damaged.get(how, bytes(content)))
    assert_same(read(**files), first)
    no_decoding(monkeypatch)
    assert_same(read(**files), first)  # and was written again
    assert not list(Path(files["cache"]).glob("*.tmp"))


def test_the_cache_lies_in_the_users_cache_folder(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    del files["cache"]
    read(**files)
    assert list((tmp_path / "xdg" / "ffsd_ray").glob("*.safetensors"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    read(**files)
    assert list((tmp_path / ".cache" / "ffsd_ray").glob("*.safetensors"))


def test_a_cache_that_cannot_be_written(files: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"data.cache: .*train.parquet: cannot be written"):
        read(**files | {"cache": files["train"]})


def read_and_count(files: dict[str, Any], start: Any, decoded: Any) -> None:
    """In a process of its own: read once all are ready, and count the images decoded over all processes."""

    def counted(data: bytes, size: int | None) -> Tensor:
        with decoded.get_lock():
            decoded.value += 1
        return decode(data, size)

    pytest.MonkeyPatch().setattr("ffsd_ray.data.decode.decode", counted)
    start.wait()
    dataset = read(**files)
    sys.exit(0 if len(dataset.train) == 40 else 1)


@pytest.mark.slow
def test_processes_that_start_at_once_decode_once(files: dict[str, Any]) -> None:
    context = multiprocessing.get_context("spawn")
    start, decoded = context.Barrier(2), context.Value("i", 0)
    processes = [context.Process(target=read_and_count, args=(files, start, decoded)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert decoded.value == 61  # 40 + 20, and the first once more for its size


# ---- folders of images


def write_folder(root: Path, images: Images, indices: range, classes: Sequence[str] = ("one", "two")) -> None:
    for index in indices:
        file = root / classes[index % len(classes)] / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(images.images[index]))


def read_folder(root: Path, **settings: Any) -> Dataset:
    return load(data_settings("image_folder", root=str(root), image_size=12, cache=f"{root}-cache", **settings))


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_folder_with_splits(held_out: str, tmp_path: Path, digits: Images) -> None:
    write_folder(tmp_path / "train", digits, range(20))
    write_folder(tmp_path / held_out, digits, range(20, 30))
    dataset = read_folder(tmp_path)
    assert_sound(dataset)
    assert dataset.classes == ("one", "two")
    assert torch.equal(images_of(dataset.train), digits.images[[*range(0, 20, 2), *range(1, 20, 2)]])
    assert torch.equal(images_of(dataset.test), digits.images[[*range(20, 30, 2), *range(21, 30, 2)]])
    assert dataset.test.labels.tolist() == [0] * 5 + [1] * 5


def test_a_folder_of_class_folders_is_split(tmp_path: Path, digits: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "pictures"
    write_folder(root, digits, range(50), ("one", "two", "three"))
    dataset = read_folder(root, test_fraction=0.3)
    assert_sound(dataset)
    assert dataset.classes == ("one", "three", "two")
    assert dataset.test.labels.bincount().tolist() == [5, 5, 5]
    pixels = torch.cat([images_of(dataset.train), images_of(dataset.test)]).flatten(1).tolist()
    assert sorted(pixels) == sorted(digits.images[:50].flatten(1).tolist())
    no_decoding(monkeypatch)
    assert_same(read_folder(root, test_fraction=0.3), dataset)
    with pytest.raises(AssertionError, match="decoded again"):  # another split is another data set
        read_folder(root, test_fraction=0.4)


def test_spoilt_folders(tmp_path: Path, digits: Images) -> None:
    with pytest.raises(DataError, match=r"data.root: .*missing: no such folder"):
        read_folder(tmp_path / "missing")
    root = tmp_path / "pictures"
    root.mkdir()
    with pytest.raises(DataError, match=r"pictures: expected class folders of images, found no folder"):
        read_folder(root)
    write_folder(root / "train", digits, range(20))
    write_folder(root / "test", digits, range(20, 30), ("one", "three"))
    with pytest.raises(DataError, match=r"pictures/test: expected the class folders of .*has none of three"):
        read_folder(root)
    (root / "test" / "three").rename(root / "test" / "two")
    (root / "train" / "two" / "005.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"train/two/005.png: expected a whole picture"):
        read_folder(root)
    (root / "train" / "two" / "005.png").unlink()
    (root / "train" / "two" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"train/two/gone.png: cannot be read: No such file"):
        read_folder(root)
    (root / "train" / "two" / "gone.png").unlink()
    for part in ("train", "test"):
        (root / part / "empty").mkdir()
    with pytest.raises(DataError, match=r"pictures/train: no picture in the class folder empty, which holds nothing"):
        read_folder(root)


def test_too_few_images_to_hold_some_out(tmp_path: Path, digits: Images) -> None:
    write_folder(tmp_path / "few", digits, range(3))
    with pytest.raises(DataError, match=r"data.test_fraction = 0.2: cannot hold out this share of 3 images"):
        read_folder(tmp_path / "few")


# ---- real data sets in Hugging Face's layout


@pytest.mark.parametrize(
    ("folder", "test", "size", "first_class"),
    [("cifar10", "test", 32, "0"), ("tinyimagenet20-64", "val", 64, "n01443537")],
)
def test_slices_of_real_data_sets(
    folder: str, test: str, size: int, first_class: str, shared: Path, tmp_path: Path
) -> None:
    for name, source, count in (("train", "train", 600), ("test", test, 200)):
        with pq.ParquetFile(shared / "data" / folder / f"{source}.parquet") as parquet:
            pq.write_table(parquet.read_row_group(0).slice(0, count), tmp_path / f"{name}.parquet")
    dataset = read(**settings_of(tmp_path), validation=0.1)
    assert dataset.val is not None
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (540, 60, 200)
    assert dataset.image_size == size
    assert dataset.classes[0] == first_class
    assert dataset.num_classes == (10 if folder == "cifar10" else 20)
    assert all(0.3 < mean < 0.6 and 0.2 < std < 0.35 for mean, std in zip(dataset.mean, dataset.std, strict=True))
    scaled = read(**settings_of(tmp_path), image_size=24)
    assert images_of(scaled.train).shape == (600, 3, 24, 24)


@pytest.mark.parametrize(
    "metadata",
    [
        b'{"info": null}',
        b'{"info": {"features": null}}',
        b"not json",
        b"\xff\xfe",
        b"[]",
        b'{"info": {"features": {"label": [{"names": ["cat", "dog"]}]}}}',
        b'{"info": {"features": {"label": {"names": null}}}}',
        b'{"info": {"features": {"label": {"names": [1, 2]}}}}',
        b'{"info": {"features": {"label": {"feature": {"names": ["a"]}, "_type": "Sequence"}}}}',
    ],
)
def test_foreign_metadata_of_another_form_are_passed_over(
    metadata: bytes, files: dict[str, Any], tmp_path: Path
) -> None:
    table = pq.read_table(files["train"]).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "foreign.parquet")
    path = str(tmp_path / "foreign.parquet")
    dataset = load(data_settings("parquet", train=path, test=path, cache=str(tmp_path / "cache")))
    assert dataset.classes == tuple(map(str, range(len(dataset.classes))))


def test_a_parquet_file_of_validation_images(files: dict[str, Any], tmp_path: Path) -> None:
    settings = files | {"val": files["test"], "cache": str(tmp_path / "cache")}
    dataset = load(data_settings("parquet", **settings))
    assert dataset.val is not None
    assert torch.equal(images_of(dataset.val), images_of(dataset.test))
    stream = load(data_settings("parquet", **settings, stream=True, image_size=8))
    assert stream.val is not None
    assert len(stream.val) == len(dataset.val)
    with pytest.raises(ValidationError, match=r"validation images are those of data\.val"):
        data_settings("parquet", **settings, validation=0.2)


def test_one_label_alone_is_nothing_to_tell_apart(files: dict[str, Any], tmp_path: Path) -> None:
    table = pq.read_table(files["train"])
    zeros = pa.array([0] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", zeros), tmp_path / "zeros.parquet")
    path = str(tmp_path / "zeros.parquet")
    with pytest.raises(
        DataError, match=r"data\.train: .*zeros\.parquet: every image is of class .* two classes or more"
    ):
        load(data_settings("parquet", train=path, test=path, cache=str(tmp_path / "cache")))
