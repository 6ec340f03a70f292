"""What would fail in the middle of a training, or give numbers that mean nothing, is known before its first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.data.resident import Images
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DataError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main
from ffsd_ray.train.before_training import check_before_training
from ffsd_ray.train.build import joins_last_batch

from helpers.images import data_settings
from helpers.specs import digits_spec
from helpers.workers import train_with

JOB = """\
name: pets
context: local
data: {name: image_folder, root: ROOT, image_size: SIZE, crop_padding: 2}
backbone: {name: BACKBONE}
method: {name: METHOD}
train: {epochs: 1, batch_size: 8, lr: 0.01}
"""


def tree(root: Path, count: int = 8, colour: tuple[int, int, int] = (9, 5, 3)) -> Path:
    """Two classes; `colour`: what each step of brightness adds to a channel."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                shade = tuple(channel * (index + 5 * (name == "b")) for channel in colour)
                Image.new("RGB", (16, 16), shade).save(root / split / name / f"{index}.png")
    return root


def command(folder: Path, *options: str, size: int = 16, backbone: str = "resnet20", method: str = "baseline") -> int:
    job = JOB.replace("ROOT", str(folder / "pets")).replace("SIZE", str(size))
    (folder / "job.yaml").write_text(job.replace("BACKBONE", backbone).replace("METHOD", method))
    return main([str(folder / "job.yaml"), "--storage", str(folder / "runs"), *options])


@pytest.mark.thorough
def test_a_channel_that_never_varies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained with finite losses; the deployed network sees what training saw."""
    tree(tmp_path / "pets", colour=(20, 0, 0))
    assert command(tmp_path) == 0
    assert "Note: In the training images green and blue never varies" in capsys.readouterr().out
    [weights] = (tmp_path / "runs").glob("pets/trials/*/model_best.safetensors")
    leader = load_model(weights)
    assert leader.card.std[1:] == (1.0, 1.0)
    picture = Image.open(tmp_path / "pets" / "test" / "a" / "3.png")
    assert leader.preprocess(picture).isfinite().all()


def test_images_of_one_colour_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "pets", colour=(0, 0, 0))
    for options in ([], ["--dry-run"]):
        assert command(tmp_path, *options) == 2
        assert "every training image is of one and the same colour" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mean", "[123.7, 116.3, 103.5]", "scaled to [0, 1], so divide by 255: [0.4851, 0.4561, 0.4059]"),
        ("std", "[58.4, 57.1, 57.4]", "scaled to [0, 1], so divide by 255: [0.229, 0.2239, 0.2251]"),
        ("mean", "[-0.1, 0.5, 0.5]", "Should be of pixels scaled to [0, 1]"),
        ("std", "0.5", "Should be 3 numbers, one each for red, green and blue"),
        ("std", "[0.5]", "Should be 3 numbers"),
        ("mean", "[0.1, 0.2, 0.3, 0.4]", "Should be 3 numbers"),
        ("mean", "[a, b, c]", "Should be 3 numbers"),
        ("std", "[0, 0.2, 0.2]", "Should be more than 0"),
    ],
)
def test_statistics_of_another_scale(
    key: str, value: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "--dry-run", "--set", f"data.{key}={value}") == 2
    message = capsys.readouterr().err
    assert f"data.{key}" in message
    assert said in message


def spec(method: dict[str, Any], backbone: str, size: int, batch_size: int, workers: int = 1) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "data": {"name": "digits", "image_size": size, "crop_padding": 2},
            "backbone": {"name": backbone},
            "method": method,
            "train": {"batch_size": batch_size},
            "scale": {"workers": workers},
        }
    )


@pytest.mark.parametrize(
    ("method", "backbone", "size", "images", "workers", "joins"),
    [
        ("baseline", "resnet20", 16, 17, 1, False),  # as ever: its batch norm has many values of a channel
        ("one", "resnet20", 16, 17, 1, True),  # its gate has one an image
        ("one", "resnet20", 16, 18, 1, False),
        ("baseline", "resnet18", 32, 17, 1, True),  # maps of 1×1
        ("baseline", "resnet18", 64, 17, 1, False),
        ("ffsd", "resnet20", 16, 17, 1, False),
        ("one", "resnet20", 16, 19, 2, True),  # the second worker would get one
        ("one", "resnet20", 16, 20, 2, False),
        ("dml", "resnet18", 32, 18, 4, True),  # two workers would get none
    ],
)
def test_which_last_batches_join_the_one_before(
    method: str, backbone: str, size: int, images: int, workers: int, joins: bool
) -> None:
    trial = spec({"name": method}, backbone, size, 16, workers)
    assert joins_last_batch(trial, images, 10, size) is joins


def test_every_image_is_in_the_joined_batch() -> None:
    images = Images(torch.zeros(17, 3, 8, 8, dtype=torch.uint8), torch.arange(17))
    settings: dict[str, Any] = {"crop_padding": 2, "flip": False, "batch_size": 8, "seed": 0, "join_last": True}
    joined, plain = (TrainBatches(images, (0.5,) * 3, (0.2,) * 3, **settings | {"join_last": j}) for j in (True, False))
    labels = [batch.labels.tolist() for batch in joined.epoch(1)]
    assert (joined.steps, joined.images, [len(part) for part in labels]) == (2, 17, [8, 9])
    assert [*labels[0], *labels[1]] == [label for batch in plain.epoch(1) for label in batch.labels.tolist()]
    assert [batch.labels.tolist() for batch in joined.epoch(1, first_step=1)] == labels[1:]
    cut = TrainBatches(images, (0.5,) * 3, (0.2,) * 3, steps_per_epoch=2, **settings)
    assert [len(batch.labels) for batch in cut.epoch(1)] == [8, 8], "the last batch was not to be seen anyway"


def test_a_last_batch_of_one_is_trained_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "a" / "0.png").rename(tmp_path / "pets" / "test" / "a" / "x.png")
    options = ["--set", "train.batch_size=7"]
    assert command(tmp_path, *options, "--dry-run", method="one") == 0
    note = "the last batch of an epoch has 1 image for 1 worker, too few for batch norm: they join the batch before"
    assert note in capsys.readouterr().out
    assert command(tmp_path, *options, method="one") == 0
    assert note in capsys.readouterr().out
    run = RunRecords.open(str(tmp_path / "runs" / "pets"))
    [identity] = run.trials()
    assert any(note in line for line in run.trial(identity).environment()["notes"])


@pytest.mark.thorough
def test_a_worker_with_one_image_of_the_last_batch(tmp_path: Path) -> None:
    """1,437 images in batches of 717: 3 are left for two workers."""
    trial = digits_spec({"name": "one"}, workers=2, batch_size=717, epochs=1, steps_per_epoch=None)
    assert len(data.load(trial.data).train) == 2 * 717 + 3
    records = train_with(trial, tmp_path / "trial")
    assert records.state() == "completed"


def test_one_batch_that_cannot_be_trained_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "pets", count=1)
    pictures = sorted((tmp_path / "pets" / "train").glob("*/*.png"))
    assert len(pictures) == 2
    dataset = data.load(data_settings("image_folder", root=str(tmp_path / "pets"), image_size=32, crop_padding=2))
    trial = spec({"name": "one"}, "resnet20", 32, 16, workers=2)
    with pytest.raises(
        DataError, match=r"train\.batch_size = 16: the last batch of an epoch has 2 images for 2 workers"
    ):
        check_before_training(trial, dataset)


def test_images_too_small_for_a_backbone_are_known_once_they_are_read() -> None:
    dataset = data.load(data_settings("digits", image_size=8))
    with pytest.raises(
        DataError, match=r"backbone\.name = vgg-16: Images of 8×8 are too small for this backbone; data.image_size"
    ):
        check_before_training(spec({"name": "baseline"}, "vgg-16", 32, 16), dataset)


def test_a_dry_run_without_images_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--dry-run") == 0
    assert "Note: the images were not looked at: data.root" in capsys.readouterr().out
