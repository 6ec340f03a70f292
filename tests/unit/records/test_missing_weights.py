"""Weights files of completed trials that are gone: `--resume` makes them again, with the same bits."""

import json
import shutil
from pathlib import Path

import pytest

from ffsd_ray.records.trial import MODEL_BEST, MODEL_LAST

from helpers.small_run import again, local_job, train, trial, write_json
from helpers.tiers import often

JOB = local_job(
    "train: {epochs: 2, batch_size: 64, steps_per_epoch: 2}",
    "scale: {threads: 1}",
    "search: {grid: {method: [{name: baseline}, {name: dml}]}}",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), JOB)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize("gone", often([[MODEL_BEST]], [[MODEL_BEST], [MODEL_LAST], [MODEL_BEST, MODEL_LAST]]))
@pytest.mark.parametrize("checkpoints", ["kept", "gone"])
def test_made_again(gone: list[str], checkpoints: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = trial(folder, "dml")
    before = {name: (own / name).read_bytes() for name in (MODEL_BEST, MODEL_LAST)}
    other = (trial(folder, "baseline") / "result.json").stat().st_mtime_ns
    for name in gone:
        (own / name).unlink()
    if checkpoints == "gone":
        shutil.rmtree(own / "checkpoints")
    assert again(folder, "--resume") == 0
    output = capsys.readouterr().out
    for name in gone:
        assert f"To be made again: {own / name}, which is missing" in output
    if checkpoints == "kept":
        assert "dml n=2, seed 0: goes on after epoch 2" in output
    assert {name: (own / name).read_bytes() for name in before} == before
    assert json.loads((own / "result.json").read_text())["ended"] == "completed"
    assert (trial(folder, "baseline") / "result.json").stat().st_mtime_ns == other
    assert again(folder, "--resume") == 0
    assert "To be made again" not in capsys.readouterr().out


def test_a_stopped_trial_has_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scheduler ended it before its last epoch; nobody learns from it."""
    own = trial(folder, "dml")
    result = json.loads((own / "result.json").read_text())
    write_json(own / "result.json", result | {"ended": "stopped at 2"})
    for name in (MODEL_BEST, MODEL_LAST):
        (own / name).unlink()
    assert again(folder, "--resume") == 0
    assert "To be made again" not in capsys.readouterr().out
    assert not (own / MODEL_LAST).exists()
