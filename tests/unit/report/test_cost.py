"""Operations by component against the published counts, and the table of what a run cost."""

import csv
import io
from pathlib import Path

import pytest

from ffsd_ray.config.inspection.flops import components
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import METHODS
from ffsd_ray.methods.ffsd import FfsdSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.report.cost import cost_table, main
from ffsd_ray.report.tables.export import render_markdown

from helpers.specs import digits_spec
from helpers.synthetic_records import Outcome, result, write_run
from helpers.workers import train_with

JOB = """
name: small
data: {name: digits}
backbone: {name: resnet20}
train: {epochs: 10, batch_size: 64}
seed: [0, 1]
search: {grid: {method: [{name: baseline}, {name: ffsd}, {name: dml}]}}
"""


@pytest.mark.parametrize(
    ("backbone", "network", "module", "fusion"), [("resnet32", 69.1, 2.4, 0.6), ("wrn-16-2", 129.4, 9.4, 2.3)]
)
def test_macs_are_the_published_ones(backbone: str, network: float, module: float, fusion: float) -> None:
    """The components of Table VII by torch's counter, and how many of each a group of two students has."""
    parts = {part.name: part for part in components(FfsdSettings(), backbone, 100, 32)}
    assert list(parts) == [backbone, "self-distillation", "fusion", "decoder"]
    assert [part.number for part in parts.values()] == [3, 2, 1, 1]
    found = [round(parts[name].macs / 1e6, 1) for name in (backbone, "self-distillation", "fusion")]
    assert found == [network, module, fusion]
    channels = 64 if backbone == "resnet32" else 128
    assert parts["decoder"].macs == 64 * (9 * channels + channels * 2 * channels)


def test_macs_of_three_students() -> None:
    """A module a student but the first, and the leader's; the fusion module grows with the students."""
    two, three = (
        {part.name: part for part in components(FfsdSettings(students=n), "resnet20", 10, 32)} for n in (2, 3)
    )
    assert [part.number for part in three.values()] == [4, 3, 1, 1]
    assert three["self-distillation"].macs == two["self-distillation"].macs
    assert three["fusion"].macs == 64 * (9 * 192 + 192 * 64) + 64 * 10


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_networks_counted(method: str) -> None:
    spec = digits_spec({"name": method})
    first, *_ = components(spec.method, "resnet8", 10, 12)
    assert first.name in ("resnet8", "resnet8 trunk")
    assert first.number >= 1


@pytest.fixture
def run(tmp_path: Path) -> RunRecords:
    """Two seeds of baseline and ffsd, of 1 and 2 hours; dml has not begun."""

    def outcome(spec: TrialSpec) -> Outcome:
        if spec.method.name == "dml":
            return ...
        sizes = {"trained": 1_234_567, "deployed": 272_474}
        return result(spec, 90, 90) | {"seconds": 3600.0 * (1 + spec.seed), "parameters": sizes}

    run = write_run(tmp_path, JOB, outcome)
    for identity, spec in run.trials().items():
        device = {"type": "cuda", "name": "H100", "workers": 1 + spec["seed"], "threads": 1}
        run.trial(identity).begin(spec, {"device": device})
    return run


def test_table(run: RunRecords) -> None:
    text = cost_table(run).text()
    rows = {row[:2]: row[2:] for row in text.sections[0].rows}
    macs = {part.name: part.macs for part in components(FfsdSettings(), "resnet20", 10, 16)}
    total = 3 * macs["resnet20"] + 2 * macs["self-distillation"] + macs["fusion"] + macs["decoder"]
    assert rows["ffsd n=2", "resnet20"][:3] == ("10.20", "3", "30.61")
    assert rows["ffsd n=2", "group"] == (
        *("", "", f"{total / 1e6:.2f}"),
        *("1.50 ± 0.71", "1,234,567", "272,474", "H100 / 2 × H100"),
    )
    assert rows["baseline", "group"][:3] == ("", "", "10.20")
    # what has not run has operations, and a note in place of the rest
    assert rows["dml n=2", "group"] == ("", "", "20.41", "", "", "", "")
    assert text.notes == ("dml n=2: no trial has completed",)
    markdown = render_markdown(cost_table(run))
    assert "| ffsd n=2 | self-distillation |" in markdown


def test_command(run: RunRecords, capsys: pytest.CaptureFixture[str]) -> None:
    for form, expected in (("terminal", "self-distillation"), ("markdown", "### small"), ("csv", "total macs")):
        assert main([run.store.location, "--format", form]) == 0
        text = capsys.readouterr().out
        assert expected in text
    lines = list(csv.DictReader(io.StringIO(text)))
    [group] = [line for line in lines if line["configuration"] == "ffsd n=2" and line["component"] == "group"]
    parts = [line for line in lines if line["configuration"] == "ffsd n=2" and line["component"] != "group"]
    assert sum(int(line["total macs"]) for line in parts) == int(group["total macs"])
    assert (group["seeds"], group["hours"], group["hours std"]) == ("0; 1", "1.5", "0.707107")
    assert main(["nowhere"]) == 2
    assert "no run here" in capsys.readouterr().err


def test_a_real_trial_records_what_the_table_reads(tmp_path: Path) -> None:
    spec = digits_spec({"name": "ffsd"}, epochs=1)
    run = RunRecords.open(str(_real_run(tmp_path, spec)))
    [cost] = cost_table(run).costs
    assert cost.parts == components(spec.method, "resnet8", 10, 12)
    assert cost.parameters is not None
    assert cost.parameters["deployed"] == 78042
    assert cost.row.hours is not None
    assert cost.row.hours.mean > 0
    assert cost.devices[0].endswith("(1 thread)")


def _real_run(folder: Path, spec: TrialSpec) -> Path:
    records = train_with(spec, folder / "trials" / spec.identity())
    assert records.state() == "completed"
    run = RunRecords(Store(str(folder)))
    run.begin("", {"name": "real"}, [], {spec.identity(): spec.model_dump()})
    return folder
