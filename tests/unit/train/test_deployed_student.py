"""Which of several students a trial deploys: the first, or the best on the validation images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ffsd_ray import data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DataError
from ffsd_ray.records.trial import MODEL_BEST, MODEL_LAST, TrialRecords
from ffsd_ray.train.before_training import check_before_training

from helpers.comparison import assert_same_end
from helpers.specs import digits_spec
from helpers.workers import train_with

MIXED = {"name": "dml", "backbones": ["resnet8", "resnet14"]}


def spec_of(method: dict[str, Any], seed: int) -> TrialSpec:
    return digits_spec(method, seed=seed, data={"validation": 0.3, "test_per_class": 10}, epochs=4, lr=0.1)


def chosen(records: TrialRecords) -> str:
    """The student with the highest accuracy on validation images after any epoch, by the history."""
    rows = records.history()
    return max(("student1", "student2"), key=lambda name: max(row[f"val/{name}/top1"] for row in rows))


@pytest.mark.thorough
def test_the_best_on_validation_images_is_deployed(tmp_path: Path) -> None:
    spec = spec_of(MIXED | {"deploy": "best"}, seed=0)
    records = train_with(spec, tmp_path / "whole")
    result, dataset = records.result(), data.load(spec.data)
    assert result["deployed"] == chosen(records) == "student2"
    assert result["primary_series"] == "student1", "comparisons do not choose"
    for file, epoch in ((MODEL_BEST, int(result["best"]["student2"]["epoch"])), (MODEL_LAST, 4)):
        model = load_model(Path(records.store.location) / file)
        assert (model.card.member, model.card.backbone, model.card.epoch) == ("student2", "resnet14", epoch)
        assert sum(p.numel() for p in model.parameters()) == result["parameters"]["deployed"]
        right = total = 0
        with torch.inference_mode():
            for images, labels in EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=500):
                right, total = right + int((model(images).argmax(dim=1) == labels).sum()), total + len(labels)
        assert 100 * right / total == pytest.approx(records.history()[epoch - 1]["test/student2/top1"])
        assert model.card.top1 == records.history()[epoch - 1]["test/student2/top1"]
    train_with(spec, tmp_path / "stopped", stop_after=2)
    assert_same_end(records, train_with(spec, tmp_path / "stopped"))


@pytest.mark.parametrize("name", ["dml", "kdcl", "afd", "amln", "one", "ffl"])
def test_the_first_is_by_default(name: str) -> None:
    first, best = (digits_spec({"name": name} | changed).method for changed in ({}, {"deploy": "best"}))
    assert (first.requires_validation, best.requires_validation) == (False, True)
    assert digits_spec({"name": name}).identity() == digits_spec({"name": name, "deploy": "first"}).identity()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "dml", "leader": True, "deploy": "best"}, "The leader is deployed"),
        ({"name": "ffsd", "deploy": "best"}, "deploy"),
        ({"name": "dml", "deploy": "best"}, "needs held-out images: above 0"),
    ],
)
def test_what_is_refused(method: dict[str, Any], said: str) -> None:
    plain = digits_spec({"name": "baseline"}).model_dump()
    with pytest.raises(ValidationError, match=said):
        TrialSpec.model_validate(plain | {"method": method})


def test_images_that_have_no_validation_split_are_refused() -> None:
    spec = digits_spec({"name": "dml", "deploy": "best"})
    without = data.load(digits_spec({"name": "dml"}).data)
    with pytest.raises(DataError, match=r"dml n=2 needs held-out images, of which there are none"):
        check_before_training(spec, without)
