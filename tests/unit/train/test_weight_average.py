"""The moving average of a group's weights: what it is, that it changes no training, and that it is deployed."""

from pathlib import Path

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.deployed import load_model
from ffsd_ray.records.trial import MODEL_LAST
from ffsd_ray.train.engine import Engine

from helpers.comparison import assert_same_end, measured
from helpers.specs import digits_spec
from helpers.workers import train_with


@pytest.mark.parametrize("method", ["ffsd", "afd"])
def test_it_follows_the_weights_step_by_step(method: str) -> None:
    """Of parameters and batch-norm statistics, from the initial ones, whatever the phases of a step."""
    decay = 0.7
    spec = digits_spec({"name": method}, backbone="resnet8", ema=decay)
    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    assert engine.average is not None
    expected = {name: value.clone() for name, value in engine.method.state_dict().items()}
    engine.begin(1)
    for _ in engine.epoch(1, engine.meters()):
        for name, value in engine.method.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    average = engine.average.group.state_dict()
    assert average.keys() == expected.keys()
    for name, value in average.items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert not all(torch.equal(value, engine.method.state_dict()[name]) for name, value in average.items())


@pytest.mark.thorough
def test_training_does_not_notice_it(tmp_path: Path) -> None:
    """The averages alone are evaluated, so that two trials with the same seed differ in nothing else."""
    without, with_average = (
        train_with(digits_spec({"name": "ffsd"}, backbone="resnet8", ema=ema), tmp_path / str(ema)).history()
        for ema in (None, 0.5)
    )
    for ours, theirs in zip(measured(without), measured(with_average), strict=True):
        assert {k: v for k, v in ours.items() if not k.startswith("test/")} == {
            k: v for k, v in theirs.items() if not k.startswith("test/")
        }
        assert ours["test/leader/loss"] != theirs["test/leader/loss"]


@pytest.mark.thorough
def test_resumed_and_deployed(tmp_path: Path) -> None:
    spec = digits_spec({"name": "dml"}, backbone="resnet8", epochs=4, ema=0.6, data={"validation": 0.2})
    whole = train_with(spec, tmp_path / "whole")
    train_with(spec, tmp_path / "stopped", stop_after=2)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))

    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    assert engine.average is not None
    state = whole.checkpoints.latest()
    assert state is not None
    engine.average.group.load_state_dict(state["average"])
    deployed = load_model(str(tmp_path / "whole" / MODEL_LAST)).backbone.state_dict()
    for name, value in engine.average.group.deployed[1].state_dict().items():
        assert torch.equal(value, deployed[name]), name
    row = whole.history()[-1]
    assert engine.measure("test")["test/student1/loss"] == pytest.approx(row["test/student1/loss"], rel=1e-6)
