"""`train.recipe`: settings that go together."""

import json
from pathlib import Path

import pytest

from ffsd_ray.config.labels import labels
from ffsd_ray.config.load import load_job
from ffsd_ray.config.optimisation import RECIPES, TrainSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import varying
from ffsd_ray.errors import JobError

SMALL = "name: j\ndata: digits\nbackbone: resnet8\nmethod: ffsd\n"


def test_a_recipe_sets_what_is_left_out(tmp_path: Path) -> None:
    """As if it were spelled out; what the file or the command line says goes over it."""
    job = tmp_path / "job.yaml"
    job.write_text(SMALL + "train: {recipe: modern, epochs: 3, mixup: 0.3}\n")
    [trial] = load_job(job).trials
    modern = RECIPES["modern"] | {"mixup": 0.3}
    assert {key: getattr(trial.train, key) for key in modern} == modern
    spelled = load_job(job, [f"train={json.dumps(modern | {'epochs': 3})}"]).trials[0]
    assert (spelled.train.recipe, spelled.identity()) == ("paper", trial.identity())
    assert TrialSpec.model_validate(trial.model_dump()) == trial
    assert trial.changed(seed=1).train == trial.train
    [paper] = load_job(job, ["train.recipe=paper"]).trials
    assert paper.train == TrainSettings(epochs=3, mixup=0.3)
    assert load_job(job, ["train.mixup=0"]).trials[0].train.mixup == 0
    with pytest.raises(JobError, match=r"--set train.recipe=moden  train\.recipe = \"moden\"\n  Should be .*modern"):
        load_job(job, ["train.recipe=moden"])


def test_recipes_are_compared_with_each_other(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(SMALL + "train: {epochs: 3}\nsearch: {grid: {train.recipe: [paper, modern]}}\n")
    paper, modern = load_job(job).trials
    assert (paper.train.optimiser, modern.train.optimiser) == ("sgd", "adamw")
    assert labels([paper, modern], None) == ["ffsd n=2, paper", "ffsd n=2, modern"]
    assert varying([paper, modern]) == ["train.recipe"]


def test_what_goes_over_a_recipe_is_in_the_labels(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(SMALL + "search: {grid: {train.recipe: [paper, modern], train.mixup: [0, 0.2]}}\n")
    assert labels(list(load_job(job).trials), None) == [
        "ffsd n=2, paper, mixup=0.0",
        "ffsd n=2, paper, mixup=0.2",
        "ffsd n=2, modern, mixup=0.0",
        "ffsd n=2, modern, mixup=0.2",
    ]


def test_optuna_does_not_choose_a_recipe(tmp_path: Path) -> None:
    """Its choices go over a trial in which everything is set."""
    job = tmp_path / "job.yaml"
    job.write_text(
        SMALL.replace("digits", "{name: digits, validation: 0.1}")
        + "search: {random: {train.recipe: [paper, modern]}, samples: 3, searcher: {name: optuna}}\n"
    )
    with pytest.raises(JobError, match=r"Optuna chooses single settings; compare recipes in search\.grid"):
        load_job(job)


def test_drawn_at_random_it_is_whole(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(SMALL + "search: {random: {train.recipe: [paper, modern]}, samples: 8}\n")
    for trial in load_job(job).trials:
        assert (trial.train.recipe == "modern") == (trial.train.optimiser == "adamw")
