"""Class folders as people have them: links, leftovers, other files, split names of every spelling, rare classes."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ffsd_ray.data import Dataset, load
from ffsd_ray.data.class_folders import SUFFIXES
from ffsd_ray.data.image_folder import ImageFolder
from ffsd_ray.data.picture import FORMATS
from ffsd_ray.errors import DataError
from ffsd_ray.run import main

from helpers.images import data_settings
from helpers.paths import PROJECT


def pictures(folder: Path, count: int = 6, suffix: str = ".png") -> None:
    """As many pictures of one colour, each of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (40 * number, 255 - 40 * number, 20 * number + len(folder.name))).save(
            folder / f"{number}{suffix}"
        )


def tree(root: Path, splits: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = ("a", "b")) -> Path:
    for split in splits or ("",):
        for name in classes:
            pictures(root / split / name)
    return root


def read(root: Path, **settings: Any) -> Dataset:
    chosen: dict[str, Any] = {
        "root": str(root),
        "image_size": 16,
        "crop_padding": 2,
        "cache": f"{root}-cache",
    } | settings
    return load(data_settings("image_folder", **chosen))


def counts(root: Path) -> list[int]:
    return read(root).train.labels.bincount().tolist()


def test_suffixes_are_those_of_the_formats_that_are_decoded() -> None:
    known = {suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS}
    assert known - {".apng", ".dib", ".avifs", ".pfm"} == SUFFIXES


@pytest.mark.parametrize("target", [".", "..", "../..", "../b", "../../test/a"])
def test_links_back_bring_in_nothing(target: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    (root / "train" / "a" / "again").symlink_to(target)
    leads_into_other_split = target == "../../test/a"
    assert counts(root) == [12 if leads_into_other_split else 6, 6]


def test_links_elsewhere_are_followed_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    pictures(tmp_path / "more" / "deep", 4)
    (tmp_path / "more" / "deep" / "round").symlink_to(tmp_path / "more")
    (root / "train" / "a" / "more").symlink_to(tmp_path / "more")
    (root / "train" / "a" / "the same").symlink_to(tmp_path / "more" / "deep")
    assert counts(root) == [10, 6]


def test_a_class_folder_that_is_a_link(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    pictures(tmp_path / "elsewhere", 3)
    for split in ("train", "test"):
        (root / split / "c").symlink_to(tmp_path / "elsewhere")
        (root / split / "again").symlink_to(".")
    dataset = read(root)
    assert dataset.classes == ("a", "b", "c")
    assert any("again: left out: it is a link" in note for note in dataset.notes)


@pytest.mark.parametrize("splits", [(), ("train", "test")])
@pytest.mark.parametrize("leftover", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trash"])
@pytest.mark.parametrize("count", [0, 6])
def test_leftovers_of_systems_are_no_classes(
    leftover: str, count: int, splits: tuple[str, ...], tmp_path: Path
) -> None:
    root = tree(tmp_path / "pets", splits)
    for place in (root, root / (splits[0] if splits else ""), root / (splits[0] if splits else "") / "a"):
        pictures(place / leftover, count)
        (place / "._0.png").write_bytes(b"\0\5\x16\7 companion")
        (place / "Thumbs.db").write_bytes(b"x")
    dataset = read(root)
    assert dataset.classes == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == (24 if splits else 12)
    assert dataset.notes == ()


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    for suffix in (".GIF", ".avif", ".jfif", ".JPG"):
        image = Image.new("RGB", (16, 16), (len(suffix), 90, 9))
        image.save(root / "train" / "a" / f"x{suffix}", "JPEG" if suffix in (".jfif", ".JPG") else None)
    for name in ("1.heic", "2.HEIC", "notes.txt", "LICENSE"):
        (root / "train" / "a" / name).write_bytes(b"x")
    pictures(root / "train", 1)
    dataset = read(root)
    assert dataset.train.labels.bincount().tolist() == [10, 6]
    [note] = dataset.notes
    assert note == (f"{root}/train: left out: 2 .heic, 1 .txt, 1 in no class folder, 1 without a suffix.")


def test_a_class_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    (root / "train" / "c").mkdir()
    (root / "train" / "c" / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"train: no picture in the class folder c, which holds 1 \.heic; expected"):
        read(root)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "Validation", "TEST"), ("TRAIN", "dev", "testing")]
)
def test_own_validation_images_choose_the_best_epoch(names: tuple[str, ...], tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", names)
    pictures(root / names[1] / "a", 4)
    dataset = read(root)
    assert dataset.val is not None
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (12, 12, 12)
    stream = read(root, stream=True, crop_padding=4)
    assert stream.val is not None
    assert stream.val.labels.tolist() == dataset.val.labels.tolist()
    with pytest.raises(DataError, match=r"data\.validation = 0\.2: the data set has a validation split of its own"):
        read(root, validation=0.2)


def test_validation_images_are_test_images_where_there_are_no_others(tmp_path: Path) -> None:
    dataset = read(tree(tmp_path / "pets", ("train", "valid")))
    assert dataset.val is None
    assert "has no test/: the images of valid/ are the test images" in dataset.notes[0]


def test_a_fifth_is_held_out_where_only_training_images_are_there(tmp_path: Path) -> None:
    inside, direct = read(tree(tmp_path / "a", ("train",))), read(tree(tmp_path / "b", ()))
    assert inside.test.labels.bincount().tolist() == direct.test.labels.bincount().tolist() == [2, 1]


def test_a_class_may_be_named_as_a_split_is(tmp_path: Path) -> None:
    """Vehicles: a train's pictures lie in it, not class folders."""
    assert read(tree(tmp_path / "vehicles", (), ("bus", "train"))).classes == ("bus", "train")


def test_splits_that_contradict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has val/ and valid/, expected one folder of val images"):
        read(tree(tmp_path / "two", ("train", "val", "valid", "test")))
    with pytest.raises(DataError, match=r"has test/, expected train/ beside it"):
        read(tree(tmp_path / "test only", ("test",)))


@pytest.mark.parametrize("empty", [False, True])
def test_a_class_without_test_images_is_trained_and_told(empty: bool, tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", classes=("a", "b", "rare"))
    shutil.rmtree(root / "test" / "a")
    if empty:
        (root / "test" / "a").mkdir()
    dataset = read(root)
    assert dataset.classes == ("a", "b", "rare")
    assert dataset.test.labels.bincount().tolist() == [0, 6, 6], "labels are those of the training images"
    assert dataset.notes == ("No test image of a: trained, but not measured.",)


def test_a_class_without_training_images_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    pictures(root / "test" / "c")
    with pytest.raises(DataError, match=r"test: expected the class folders of .*train, which has none of c$"):
        read(root)
    (root / "test" / "c").rename(root / "test" / "B")
    with pytest.raises(DataError, match=r"none of B \(upper and lower case differ: B for b\)"):
        read(root)


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train: has one class folder, cat; expected two or more"):
        read(tree(tmp_path / "pets", classes=("cat",)))
    tree(tmp_path / "above" / "pets", ())
    with pytest.raises(DataError, match=r"did you mean .*above/pets, which has a, b\?"):
        read(tmp_path / "above")


def test_a_share_that_cannot_be_held_out_names_the_class(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", classes=("lynx", "puma"))
    for number in range(1, 6):
        (root / "train" / "lynx" / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"data\.validation = 0\.3: .* 7 images of 2 classes: .*fewer has lynx \(1\)"):
        read(root, validation=0.3)
    many = tree(tmp_path / "many", classes=tuple(f"c{index:02}" for index in range(20)))
    with pytest.raises(DataError, match=r"data\.validation = 0\.1: .*it is 12 of them.* a share from 0\.17 to 0\.83"):
        read(many, validation=0.1)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scandir = tree(tmp_path / "pets"), os.scandir

    def refused(path: Any) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"pets/.*b: cannot be read: Permission denied"):
        read(root)


JOB = """\
name: pets
context: local
data: {name: image_folder, root: ROOT, image_size: 16, crop_padding: 2}
backbone: {name: resnet20}
method: {name: METHOD}
train: {epochs: 1, batch_size: 8, lr: 0.01}
"""


@pytest.mark.thorough
def test_own_validation_images_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They choose the best epoch, a method may learn from them, notes are told and recorded."""
    from ffsd_ray import evaluate
    from ffsd_ray.records.run import RunRecords

    root = tree(tmp_path / "pets", ("train", "val", "test"), ("a", "b", "rare"))
    shutil.rmtree(root / "test" / "rare")
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("ROOT", str(root)).replace("METHOD", "kdcl, target: general"))
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 0
    assert "No test image of rare" in capsys.readouterr().out
    run = RunRecords.open(str(tmp_path / "runs" / "pets"))
    [identity] = run.trials()
    assert run.trial(identity).result()["selection"] == "val"
    assert run.trial(identity).environment()["notes"] == ["No test image of rare: trained, but not measured."]
    weights = run.trial(identity).store.location + "/model_best.safetensors"
    assert evaluate.main([weights]) == 0
    assert "the same" in capsys.readouterr().out
    assert evaluate.main([weights, "--split", "val"]) == 0

    shutil.rmtree(root / "val")
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--set", "name=again"]) == 2
    said = capsys.readouterr().err
    assert "kdcl" in said
    assert "data.validation" in said
    assert not (tmp_path / "runs" / "again").exists()


def test_a_submitted_job_brings_the_users_images(tmp_path: Path) -> None:
    """As Ray packs a working directory, with the project's own .rayignore and .gitignore."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    project, work = PROJECT, tmp_path / "work"
    names = ["pets/train/cat/0.png", "pets/train/env/1.png", "images/train.parquet", "build/a/x.png", "my/build/x.png"]
    for name in (*names, "env/bin/python", "runs/small/x.png", "jobs/formulations.png"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(b"x")
    for name in (".rayignore", ".gitignore"):
        shutil.copy(project / name, work)
    packaging.create_package(str(work), tmp_path / "package.zip", include_gitignore=True)
    packed = set(zipfile.ZipFile(tmp_path / "package.zip").namelist())
    assert set(names) - packed == {"build/a/x.png"}, "Python's own folder of that name"
    assert not {"env/bin/python", "runs/small/x.png", "jobs/formulations.png"} & packed


def test_the_order_of_a_clean_folder_is_torchvisions(tmp_path: Path) -> None:
    """So that results of earlier versions stand."""
    from torchvision import datasets

    root = tree(tmp_path / "pets", ())
    for below in ("x", "x-y", "x/z", "X"):
        pictures(root / "a" / below, 3)
    pictures(root / "B", 12, ".JPG")
    items = [item for item in ImageFolder(root=str(root)).encoded().items]
    assert sorted((item.where, item.label) for item in items) == sorted(datasets.ImageFolder(root).samples)
    in_order = [(item.where, item.label) for item in sorted(items, key=lambda item: (item.label, 0))]
    trained = {item.where for item in ImageFolder(root=str(root)).encoded().train}
    assert [path for path, _ in in_order if path in trained] == [
        p for p, _ in datasets.ImageFolder(root).samples if p in trained
    ]
