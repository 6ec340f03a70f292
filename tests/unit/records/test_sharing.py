"""Trials that are trained once and used again: across runs, and from one trial to another."""

from pathlib import Path

import pytest
import torch

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.collect import collect
from ffsd_ray.run import main
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.context import LocalContext
from ffsd_ray.train.donor import Donor
from ffsd_ray.train.trainer import train

from helpers.comparison import latest_state
from helpers.specs import digits_spec
from helpers.synthetic_records import result, write_run

JOB = """
name: {name}
context: local
data: {{name: digits, image_size: 8}}
backbone: {{name: resnet20}}
method: {{name: baseline}}
train: {{epochs: 2, batch_size: 16, steps_per_epoch: 2}}
seed: [0, 1]
search: {{grid: {{train.lr: {rates}}}}}
"""


def run(folder: Path, name: str, rates: list[float], *options: str) -> RunRecords:
    file = folder / f"{name}.yaml"
    file.write_text(JOB.format(name=name, rates=rates))
    assert main([str(file), "--storage", str(folder / "runs"), *options]) == 0
    return RunRecords.open(str(folder / "runs" / name))


class _Ended(Exception):
    """Somebody has ended a worker."""


class _EndedContext(LocalContext):
    def report(self, row: HistoryRow) -> None:
        raise _Ended


def trained(records: TrialRecords, spec: TrialSpec, donor: Donor | None = None) -> None:
    train(spec, records, LocalContext(torch.device("cpu")), keep_checkpoints=True, donor=donor)


@pytest.mark.thorough
def test_trials_completed_in_another_run_are_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path, "first", [0.1, 0.05])
    second = run(tmp_path, "second", [0.05, 0.02])
    assert "Reused from run first: 2 of 4 trials." in capsys.readouterr().out
    shared = [identity for identity in second.trials() if identity in first.trials()]
    assert len(shared) == 2
    for identity, spec in second.trials().items():
        records = second.trial(identity)
        assert records.result().get("reused") == ("first" if identity in shared else None)
        assert [row["epoch"] for row in records.history()] == [1, 2]
        assert records.spec() == spec
        if identity in shared:
            assert records.store.read("model_best.safetensors") == first.trial(identity).store.read(
                "model_best.safetensors"
            )
    third = run(tmp_path, "third", [0.05], "--set", "records.reuse=false")
    assert all("reused" not in third.trial(identity).result() for identity in third.trials())


def test_only_trials_at_their_end_are_taken_over(tmp_path: Path) -> None:
    job = JOB.format(name="run", rates=[0.1])
    specs = iter(["failed for a reason", None])
    (tmp_path / "storage").mkdir()
    other = write_run(tmp_path / "storage", job, lambda spec: next(specs))
    one, unfinished = other.trials()
    mine = RunRecords(Store(str(tmp_path / "storage" / "mine")))
    assert mine.reuse([one, unfinished], pytest.fail) == {}
    other.trial(unfinished).write_provisional(result(TrialSpec.model_validate(other.trials()[unfinished]), 90, 80))
    other.trial(unfinished).stop()
    assert mine.reuse([one, unfinished], pytest.fail) == {}


def test_a_stopped_trials_result_is_how_it_stood(tmp_path: Path) -> None:
    spec = digits_spec({"name": "baseline"}, epochs=2)
    records = TrialRecords(Store(str(tmp_path / "trial")))
    trained(records, spec)
    complete = records.result()
    assert complete["ended"] == "completed"
    assert not records.store.exists("provisional_result.json")
    stopped = TrialRecords(Store(str(tmp_path / "stopped")))
    with pytest.raises(_Ended):
        train(spec, stopped, _EndedContext(torch.device("cpu")), stoppable=True)
    stopped.stop()
    assert not stopped.store.exists("provisional_result.json")
    result = stopped.result()
    assert result.keys() == complete.keys() - {"similarity"}
    assert (result["ended"], result["last"]["epoch"]) == ("stopped at 1", 1)
    assert stopped.state() == "completed"
    other = TrialRecords(Store(str(tmp_path / "other")))
    with pytest.raises(_Ended):
        train(spec, other, _EndedContext(torch.device("cpu")))
    assert not other.store.exists("provisional_result.json"), "of use to schedulers only"


@pytest.mark.thorough
def test_a_trial_goes_on_from_exactly_the_donors_checkpoint(tmp_path: Path) -> None:
    donor_spec = digits_spec({"name": "ffsd"}, epochs=4)
    taker_spec = digits_spec({"name": "ffsd", "lambda_fea": 100.0}, epochs=4)
    donor, taker = (TrialRecords(Store(str(tmp_path / name))) for name in ("donor", "taker"))
    trained(donor, donor_spec)
    trained(taker, taker_spec.model_copy(update={"train": taker_spec.train.model_copy(update={"epochs": 2})}))
    given = Donor("donor", donor, 2, {"method.lambda_fea": 100.0})
    trained(taker, taker_spec, given)
    at_two, there = taker.checkpoints.after(2), donor.checkpoints.after(2)
    torch.testing.assert_close(at_two["method"], there["method"], rtol=0, atol=0)
    torch.testing.assert_close(at_two["optimisers"], there["optimisers"], rtol=0, atol=0)
    assert at_two["progress"]["rows"] == there["progress"]["rows"]
    assert at_two["progress"]["lineage"] == [given.note]
    history = taker.history()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[:2] == donor.history()[:2]
    assert history[3]["weight/lambda_fea"] == pytest.approx(10 * donor.history()[3]["weight/lambda_fea"])
    assert history[3]["test/leader/loss"] != donor.history()[3]["test/leader/loss"]
    assert taker.result()["ended"] == "exploited from donor at 2"
    # Begun again, it goes on from its own state: the donor's has been taken over already.
    finished = latest_state(taker)
    trained(taker, taker_spec, given)
    assert taker.history() == history
    torch.testing.assert_close(latest_state(taker)["method"], finished["method"], rtol=0, atol=0)


def test_what_a_trial_was_before_it_took_over_is_given_up(tmp_path: Path) -> None:
    """Though its own state had come further: a run that is resumed knows nothing of the donor."""
    spec = digits_spec({"name": "baseline"}, epochs=4)
    donor, taker = (TrialRecords(Store(str(tmp_path / name))) for name in ("donor", "taker"))
    trained(donor, spec)
    trained(taker, spec.model_copy(update={"seed": 1}))
    taker.store.delete("result.json")
    with pytest.raises(_Ended):
        train(spec, taker, _EndedContext(torch.device("cpu")), keep_checkpoints=True, donor=Donor("it", donor, 2, {}))
    trained(taker, spec)
    assert taker.result()["ended"] == "exploited from it at 2"
    torch.testing.assert_close(latest_state(taker)["method"], latest_state(donor)["method"], rtol=0, atol=0)


def test_reused_trials_are_in_the_table(tmp_path: Path) -> None:
    run(tmp_path, "first", [0.1])
    second = run(tmp_path, "second", [0.1])
    assert [trial.result and trial.result["reused"] for trial in collect(second)] == ["first", "first"]
