"""`ffsd init`: a job file for a folder of pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ffsd_ray import init
from ffsd_ray.config.load import load_job


def pictures(folder: Path, counts: dict[str, int], size: tuple[int, int] = (50, 40)) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


def test_the_file_is_a_job_that_trains_on_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "my pets", {"cat": 40, "dog": 30})
    monkeypatch.chdir(tmp_path)
    assert init.main(["my pets"]) == 0
    text = Path("my-pets.yaml").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("# yaml-language-server: $schema=ffsd.schema.json\n")
    assert "properties" in json.loads(Path("ffsd.schema.json").read_text())
    assert "70 pictures in 2 classes; to train on: cat 32, dog 24.\n# Held out for testing: 14." in text
    baseline, ffsd = load_job("my-pets.yaml").trials
    assert (baseline.method.name, ffsd.method.name) == ("baseline", "ffsd")
    assert (ffsd.data.known_size, ffsd.backbone.name) == (32, "resnet20"), "half of the pictures have 40 pixels"
    assert (ffsd.data.validation, ffsd.train.recipe, ffsd.train.batch_size) == (0, "modern", 32)
    assert ffsd.train.evaluate_every == ffsd.train.epochs, "so few choose no epoch"
    assert init.main(["my pets"]) == 2
    assert capsys.readouterr().err == "my-pets.yaml: is there already; give another --out, or move it away\n"


def test_what_is_chosen_follows_the_pictures(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", {"train/x": 8, "train/y": 60, "test/x": 2, "val/y": 3}, (300, 400))
    job = tmp_path / "job.yaml"
    for gpu, side, backbone in ((False, 32, "resnet20"), (True, 224, "torchvision:resnet18")):
        job.write_text(init.job_text(folder, "a", "job.yaml", gpu=gpu))
        first = load_job(job).trials[0]
        assert (first.data.known_size, first.backbone.name) == (side, backbone)
        assert (first.data.validation, first.train.evaluate_every) == (0, 1), "val/ is there"
        assert first.scale.left_open, "a run chooses"
    assert "Held out for testing: 2; for validation: 3." in job.read_text()
    assert "Unequal classes: y has 60, x 8;" in job.read_text()


@pytest.mark.parametrize(("counts", "held_out"), [({"x": 30, "y": 100}, 0.1), ({"x": 10, "y": 120}, 0)])
def test_many_pictures_choose_an_epoch(
    counts: dict[str, int], held_out: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a class has few."""
    monkeypatch.setattr(init, "_ENOUGH_TO_HOLD_OUT", 100)
    job = tmp_path / "job.yaml"
    job.write_text(init.job_text(pictures(tmp_path / "a", counts), "a", "job.yaml", gpu=False))
    first = load_job(job).trials[0]
    assert (first.data.validation, first.train.evaluate_every == 1) == (held_out, held_out > 0)


def test_names_from_the_disk_end_no_comment(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    folder = pictures(tmp_path / 'a"\n#: {', {"x\nname: other": 30, "y\x1b[2J": 30})
    job.write_text(init.job_text(folder, "a", "job.yaml", gpu=False))
    plan = load_job(job)
    assert plan.job.name == "a"
    assert plan.trials[0].data.model_dump()["root"] == str(folder)
    assert "x\\nname: other 24, y\\x1b[2J 24" in job.read_text()


@pytest.mark.parametrize("content", [{}, {"only": 3}])
def test_no_classes_no_job(content: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "job.yaml"
    assert init.main([str(pictures(tmp_path / "a", content)), "--out", str(out)]) == 2
    assert "class" in capsys.readouterr().err or not content
    assert not out.exists()
