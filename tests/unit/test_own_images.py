"""The README's way with a folder of one's own images: train, then ask what a picture shows."""

from pathlib import Path

import pytest
from torchvision.transforms.v2.functional import to_pil_image

from ffsd_ray import classify, load_model
from ffsd_ray.run import main

from helpers.images import data_settings, images_of

JOB = """\
name: pets
context: local
data: {name: image_folder, root: PETS, image_size: 16, validation: 0.1, flip: false, crop_padding: 2}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 6, batch_size: 16, warmup_epochs: 1, lr: 0.05}
"""


def test_missing_images_leave_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One message, status 2, and the same command works once the images are there."""
    job = tmp_path / "pets.yaml"
    job.write_text(JOB.replace("PETS", str(tmp_path / "nowhere")))
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 2
    assert f"{tmp_path}/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_train_on_a_folder_and_classify_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = data_settings("digits", image_size=24).read(progress=False)
    for part, split in (("train", digits.train), ("test", digits.test)):
        for name, label in (("zero", 0), ("one", 1)):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for index in (split.labels == label).nonzero()[:60, 0].tolist():
                to_pil_image(images_of(split)[index]).save(folder / f"{index}.png")
    job = tmp_path / "pets.yaml"
    job.write_text(JOB.replace("PETS", str(tmp_path / "pets")))
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--set", f"data.cache={tmp_path / 'cache'}"]) == 0
    [leader] = (tmp_path / "runs" / "pets" / "trials").glob("*/model_best.safetensors")
    assert load_model(leader).classes == ("one", "zero")
    assert load_model(leader).card.top1 > 70, "far above chance; the last digits depend on the processor"
    capsys.readouterr()
    assert classify.main([str(leader), str(leader), "picture.png"]) == 2
    assert "2 networks, expected one" in capsys.readouterr().err
    pictures = sorted((tmp_path / "pets" / "test").glob("*/*.png"))
    assert classify.main([str(leader), *map(str, pictures)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    right = [line.split()[1] == picture.parent.name for line, picture in zip(lines, pictures, strict=True)]
    assert sum(right) / len(right) == pytest.approx(load_model(leader).card.top1 / 100, abs=0.02)
