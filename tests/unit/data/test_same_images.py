"""Trials know their images by content: other ones in the same place are another data set, the same elsewhere not."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffsd_ray import data, evaluate
from ffsd_ray.data.image_folder import ImageFolder
from ffsd_ray.data.parquet import Parquet
from ffsd_ray.errors import DataError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main

from helpers.images import IMAGE_TYPE, images_of

JOB = """\
name: pets
context: local
data: {name: image_folder, root: ROOT, image_size: 16, crop_padding: 2, cache: CACHE}
backbone: {name: resnet20}
method: {name: baseline}
train: {epochs: 1, batch_size: 8, lr: 0.01}
"""


def tree(root: Path, classes: str = "ab", shade: int = 0) -> Path:
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for index in range(6):
                Image.new("RGB", (16, 16), (40 * index, 90 * number, shade + 20 * index)).save(
                    root / split / name / f"{index}.bmp"
                )
    return root


def settings(root: Path) -> ImageFolder:
    return ImageFolder(root=str(root), image_size=16, crop_padding=2, cache=str(root.parent / "cache"))


def fingerprint(root: Path) -> str:
    return str(settings(root).with_fingerprint(progress=False).fingerprint)


def train(folder: Path, *options: str, root: str = "pets") -> int:
    (folder / "job.yaml").write_text(JOB.replace("ROOT", root).replace("CACHE", str(folder / "cache")))
    return main([str(folder / "job.yaml"), "--storage", str(folder / "runs"), *options])


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    records = RunRecords.open(str(folder / "runs" / name))
    return [records.trial(identity).result() for identity in records.trials()]


def repaint_in_place(file: Path) -> None:
    """Other pixels in a file of the same size, with the same modification time."""
    before = file.stat()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def test_the_content_counts_and_not_the_place(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    first = fingerprint(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert fingerprint(tmp_path / "copy") == first, "another place, other times"
    (root / "train" / "notes.txt").write_text("not read")
    (root / "train" / ".hidden.bmp").write_text("not read")
    assert fingerprint(root) == first
    for change in (
        lambda: repaint_in_place(root / "train" / "a" / "3.bmp"),
        lambda: (root / "test" / "b" / "5.bmp").unlink(),
        lambda: (root / "test" / "b" / "4.bmp").rename(root / "test" / "a" / "9.bmp"),
    ):
        change()
        changed = fingerprint(root)
        assert changed != first
        first = changed


def test_a_second_look_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "pets")
    first = fingerprint(root)
    monkeypatch.setattr("ffsd_ray.data.fingerprint._sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert fingerprint(root) == first


def test_a_changed_picture_is_decoded_anew(tmp_path: Path) -> None:
    """Also one of the same size and modification time: the cache of decoded images must not hide it."""
    root = tree(tmp_path / "pets")
    before = data.load(settings(root))
    repaint_in_place(root / "train" / "a" / "0.bmp")
    assert images_of(data.load(settings(root)).train)[0, :, 0, 0].tolist() == [1, 2, 3]
    assert images_of(before.train)[0, :, 0, 0].tolist() == [0, 0, 0]


def test_parquet_files_count_by_their_content(tmp_path: Path) -> None:
    def written(name: str, labels: list[int]) -> str:
        rows = [{"bytes": b"x", "path": None}] * len(labels)
        pq.write_table(pa.table({"image": pa.array(rows, IMAGE_TYPE), "label": labels}), tmp_path / name)
        return str(tmp_path / name)

    def of(*, train: str, test: str, val: str | None = None) -> str:
        found = Parquet(train=train, test=test, val=val, cache=str(tmp_path / "cache")).with_fingerprint(progress=False)
        return str(found.fingerprint)

    one, same, other = written("1", [0, 1]), written("2", [0, 1]), written("3", [1, 0])
    assert of(train=one, test=other) == of(train=same, test=other)
    assert len({of(train=one, test=other), of(train=other, test=one), of(train=one, val=other, test=other)}) == 3


@pytest.mark.thorough
def test_no_result_is_taken_over_from_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "pets")
    assert train(tmp_path, root=str(tmp_path / "pets")) == 0
    assert "fingerprint" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "pets")
    tree(tmp_path / "pets", "xyz")
    assert train(tmp_path, "--set", "name=second", root=str(tmp_path / "pets")) == 0
    assert "Reused" not in capsys.readouterr().out
    assert [result["classes"] for result in results(tmp_path, "second")] == [3]


@pytest.mark.thorough
def test_another_projects_relative_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, classes, shade in (("one", "ab", 0), ("two", "abc", 0), ("three", "ab", 0)):
        tree(tmp_path / folder / "pets", classes, shade)
        monkeypatch.chdir(tmp_path / folder)
        assert train(tmp_path, "--set", f"name={folder}") == 0
    assert [results(tmp_path, name)[0]["classes"] for name in ("one", "two", "three")] == [2, 3, 2]
    assert capsys.readouterr().out.count("Reused from run one: 1 of 1 trials.") == 1, "the same images in another place"
    assert results(tmp_path, "three")[0]["reused"] == "one"


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "pets")
    assert train(tmp_path, root=str(root)) == 0
    [result] = results(tmp_path, "pets")
    repaint_in_place(root / "train" / "a" / "3.bmp")
    assert train(tmp_path, "--resume", "--set", "seed=[0, 1]", root=str(root)) == 2
    said = capsys.readouterr().err
    assert f"data.root = {root}: the images are not those that this run began with (fingerprint " in said
    assert "--set name=NEW" in said
    assert results(tmp_path, "pets") == [result]


def test_a_worker_whose_images_differ_refuses(tmp_path: Path) -> None:
    """Its node has others, or they changed since the driver looked."""
    root = tree(tmp_path / "pets")
    known = settings(root).with_fingerprint(progress=False)
    assert len(data.load(known).train) == 12
    repaint_in_place(root / "train" / "a" / "3.bmp")
    with pytest.raises(DataError, match=rf"data\.fingerprint: {root}: .*expected {known.fingerprint}, found"):
        data.load(known)


def test_a_fingerprint_that_a_job_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "pets")
    assert train(tmp_path, "--set", f"data.fingerprint={fingerprint(root)}", root=str(root)) == 0
    assert train(tmp_path, "--set", "name=b", "--set", f"data.fingerprint={'a' * 64}", root=str(root)) == 2
    assert f"expected {'a' * 64}, found" in capsys.readouterr().err


def test_the_dry_run_names_the_identities_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tree(tmp_path / "pets"))
    assert train(tmp_path, "--dry-run", root=root) == 0
    planned = capsys.readouterr().out
    assert train(tmp_path, root=root) == 0
    [identity] = RunRecords.open(str(tmp_path / "runs" / "pets")).trials()
    assert identity in planned


def test_nothing_is_loaded_where_nothing_is_left_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tree(tmp_path / "pets"))
    assert train(tmp_path, root=root) == 0
    monkeypatch.setattr(data, "load", lambda *args, **options: pytest.fail("images are loaded"))
    assert train(tmp_path, "--resume", root=root) == 0
    assert train(tmp_path, "--set", "name=again", root=root) == 0, "taken over from the first"


def test_other_images_may_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "pets")
    assert train(tmp_path, root=str(root)) == 0
    [weights] = (tmp_path / "runs").glob("pets/trials/*/model_best.safetensors")
    repaint_in_place(root / "test" / "a" / "3.bmp")
    capsys.readouterr()
    assert evaluate.main([str(weights)]) == 0
    assert "not the images of the training" in capsys.readouterr().out
