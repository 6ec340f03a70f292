"""Methods, backbones and data sources from modules outside of the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffsd_ray.plugins import VARIABLE

from helpers.tiers import often

#: One of each, as a user would write them.
MODULE = '''
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ffsd_ray.backbones.base import Features
from ffsd_ray.data.base import Dataset, DataSettings, channel_statistics
from ffsd_ray.data.resident import Images
from ffsd_ray.methods.base import Losses
from ffsd_ray.methods.baseline import Baseline, BaselineSettings


class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        maps = [F.relu(self.conv(images))]
        return Features(self.fc(maps[-1].mean(dim=(2, 3))), maps)


BUILDERS = {"tiny": Tiny}


class SquaredSettings(BaselineSettings):
    name: Literal["squared"] = "squared"


class Squared(Baseline):
    Settings = SquaredSettings

    def forward(self, views, labels, phase):
        losses = super().forward(views, labels, phase)
        assert not any(torch.isnan(term) for term in losses.terms.values())  # so its operations are not counted
        return Losses({name: term.square() for name, term in losses.terms.items()}, losses.logits)


class Halves(DataSettings):
    """Pictures that are light in the upper or in the lower half."""

    name: Literal["halves"] = "halves"

    @property
    def known_classes(self):
        return 2

    @property
    def known_size(self):
        return 8

    @property
    def known_train_images(self):
        return 40

    def read(self, progress):
        def images(number):
            labels = torch.arange(number) % 2
            pixels = torch.zeros(number, 3, 8, 8, dtype=torch.uint8)
            pixels[labels == 0, :, :4] = 200
            pixels[labels == 1, :, 4:] = 200
            return Images(pixels, labels)

        train = images(40)
        return Dataset(train, None, images(20), ("upper", "lower"), *channel_statistics(train.images))
'''
JOB = """\
name: j
context: CONTEXT
data: {name: halves, flip: false, crop_padding: 0}
backbone: tiny
method: squared
train: {epochs: 2, batch_size: 8}
scale: {launcher: trainer}
"""


def ffsd(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ffsd` started in a folder, as a user would."""
    variables = {key: value for key, value in os.environ.items() if key != VARIABLE} | environment
    command = [sys.executable, "-m", "ffsd_ray", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_parts.py").write_text(MODULE)
    for context in ("local", "ray"):
        (tmp_path / f"{context}.yaml").write_text(JOB.replace("CONTEXT", context))
    return tmp_path


@pytest.mark.thorough
def test_a_step_that_looks_at_values_has_an_unknown_cost(folder: Path) -> None:
    done = ffsd(folder, "--plugin", "my_parts", "run", "local.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Cost of 1 trial unknown" in done.stdout


@pytest.mark.thorough
def test_a_backbone_that_looks_at_values_is_refused_with_the_reason(folder: Path) -> None:
    looking = MODULE.replace("        maps = [F", "        assert torch.isfinite(images).all()\n        maps = [F")
    (folder / "looking.py").write_text(looking)
    done = ffsd(folder, "--plugin", "looking", "run", "local.yaml", "--dry-run")
    assert done.returncode == 2
    assert "do not pass through this backbone where only shapes are computed" in done.stderr
    assert "meta tensors" in done.stderr


@pytest.mark.thorough
def test_one_of_each(folder: Path) -> None:
    done = ffsd(folder, "--plugin", "my_parts", "run", "local.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    [trial] = (folder / "runs" / "j" / "trials").iterdir()
    result = json.loads((trial / "result.json").read_text())
    assert result["classes"] == 2
    environment = json.loads((trial / "environment.json").read_text())
    assert len(environment["versions"]["plugin my_parts"]) == 16
    report = ffsd(folder, "report", "runs/j", **{VARIABLE: "my_parts"})
    assert "squared" in report.stdout, report.stderr
    for command in ("cost", "methods"):
        shown = ffsd(folder, "--plugin", "my_parts", command, "runs/j")
        assert shown.returncode == 0, shown.stderr
    model = "runs/j/best.safetensors"
    refused = ffsd(folder, "classify", model, "nothing.png")
    assert "unknown backbone tiny" in refused.stderr
    found = ffsd(folder, "--plugin", "my_parts", "classify", model, "nothing.png")
    assert "nothing.png: cannot be read" in found.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_on_every_worker(folder: Path) -> None:
    done = ffsd(folder, "--plugin", "my_parts", "run", "ray.yaml", "--set", "scale.workers=2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_unknown_name_without_it(folder: Path) -> None:
    done = ffsd(folder, "run", "local.yaml")
    assert done.returncode == 2
    assert 'backbone.name = "tiny"' in done.stderr


WRONG = [
    ("nowhere", "plugin nowhere: cannot be imported: ModuleNotFoundError"),
    ("raises", "plugin raises: cannot be imported: ValueError: no"),
    ("taken", "plugin taken: two parts are named resnet8"),
]


@pytest.mark.parametrize(
    ("module", "said"),
    often(WRONG[:1], WRONG, others="slow"),
)
def test_what_is_wrong_with_a_module(module: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise ValueError('no')\n")
    (tmp_path / "taken.py").write_text("BUILDERS = {'resnet8': print}\n")
    done = ffsd(tmp_path, "--plugin", module, "run", "job.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith(said)
