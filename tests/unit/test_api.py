"""Jobs and runs from Python, as in a notebook."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ffsd_ray
from ffsd_ray.errors import JobError, RecordsError

JOB: dict[str, Any] = {
    "name": "notebook",
    "context": "local",
    "data": {"name": "digits", "image_size": 12, "validation": 0.2},
    "backbone": "resnet8",
    "train": {"epochs": 3, "batch_size": 32, "lr": 0.05, "steps_per_epoch": 3},
    "seed": [0, 1],
    "search": {"grid": {"method": ["baseline", "ffsd"]}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ffsd_ray.Run:
    return ffsd_ray.fit(JOB, {"train.epochs": 2}, storage=str(tmp_path_factory.mktemp("runs")))


def test_a_run_at_a_glance(run: ffsd_ray.Run) -> None:
    assert repr(run).endswith("4 of 4 trials completed")
    labels = [trial.label for trial in run]
    assert labels == ["baseline, seed 0", "baseline, seed 1", "ffsd n=2, seed 0", "ffsd n=2, seed 1"]
    results = run.results()
    assert list(results["label"]) == labels
    assert list(results["seed"]) == [0, 1, 0, 1]
    assert set(results["state"]) == {"completed"}
    assert list(results["series"]) == ["student", "student", "leader", "leader"]
    assert results["best"].between(0, 100).all()
    for trial, line in zip(run, results.to_dict("records"), strict=True):
        assert line["last"] == trial.result["last"][f"test/{line['series']}/top1"]
    table = run.table("last")
    assert list(table["configuration"]) == ["baseline", "ffsd n=2"]
    shown = run._repr_html_()
    assert "4 of 4 trials completed" in shown
    assert "<td>ffsd n=2</td>" in shown


def test_histories(run: ffsd_ray.Run) -> None:
    history = run.history()
    assert list(history["epoch"]) == [1, 2] * 4
    assert history["test/leader/top1"].notna().sum() == 4
    one = run.trials[2].history()
    assert np.array_equal(one["term/leader/ce"], history[history["label"] == "ffsd n=2, seed 0"]["term/leader/ce"])


def test_the_best_model_is_at_hand(run: ffsd_ray.Run) -> None:
    found = run.best()
    chosen = run.results().set_index("trial").loc[found.spec.identity()]
    model = found.load()
    assert model.card.top1 == chosen["best"]
    kept = ffsd_ray.load_model(Path(run.records.store.location) / "best.safetensors")
    assert kept.card == model.card
    assert model(torch.zeros(2, 3, 12, 12)).shape == (2, 10)
    assert found.load("last").card.epoch == 2


def test_pictures_and_the_page(run: ffsd_ray.Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run.plot().axes
    with pytest.raises(JobError, match=r"Did you mean `train\.lr`"):
        run.plot("train.lr2", epoch="last")
    page = run.page(tmp_path / "run.html")
    assert "ffsd n=2" in page.read_text()


def test_opened_again_and_gone_on_with(run: ffsd_ray.Run) -> None:
    folder = Path(run.records.store.location)
    again = ffsd_ray.open_run(folder)
    assert again.results().equals(run.results())
    with pytest.raises(RecordsError, match="a run is here already"):
        ffsd_ray.fit(JOB, {"train.epochs": 2}, storage=str(folder.parent))
    resumed = ffsd_ray.fit(JOB, {"train.epochs": 2}, storage=str(folder.parent), resume=True)
    assert resumed.results().equals(run.results())


def test_a_job_file_will_do(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: file\ncontext: local\ndata: {name: digits, image_size: 8}\nbackbone: resnet8\nmethod: baseline\n"
        "train: {epochs: 1, batch_size: 32, steps_per_epoch: 1}\n"
    )
    run = ffsd_ray.fit(job, {"train.lr": 1e-5, "records": {"storage": str(tmp_path / "runs")}})
    assert run.trials[0].spec.train.lr == 1e-5
    assert (tmp_path / "runs" / "file" / "job.json").exists()


@pytest.mark.parametrize(
    ("job", "overrides", "said"),
    [
        (JOB | {"metod": "ffsd"}, {}, r"job:\d+:1  metod = .*\n  Unknown key. Did you mean `method`"),
        (JOB, {"train.epoch": 3}, "--set train.epoch=3"),
        (JOB | {"backbone": "wrn-16-3"}, {}, "Did you mean `wrn-16-2`"),
    ],
)
def test_errors_are_the_commands(job: dict[str, Any], overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        ffsd_ray.fit(job, overrides)


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="no run here"):
        ffsd_ray.open_run(tmp_path)
