"""The table of what methods reach and cost, from made-up records computed by hand."""

import csv
import io
from pathlib import Path

import pytest

from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.methods import main, methods_table
from ffsd_ray.spec.flops import components
from ffsd_ray.spec.trial import TrialSpec

from made_up import Outcome, result, write_run

JOB = """
name: small
data: {name: digits}
backbone: {name: resnet20}
train: {epochs: 10, batch_size: 64}
seed: [0, 1]
search: {grid: {method: [{name: baseline}, {name: ffsd}, {name: okddip}, {name: dml}]}}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunRecords:
    """Two seeds each; dml has not begun, and one of ffsd's has failed."""

    def outcome(spec: TrialSpec) -> Outcome:
        alone, led = spec.method.name == "baseline", spec.method.name == "ffsd"
        if spec.method.name == "dml":
            return ...
        if led and spec.seed == 1:
            return "out of memory"
        found = result(spec, 90, 80 if alone else 85 + spec.seed)
        found["last"]["images_per_second"] = 1000.0 + 200 * spec.seed if alone else 250.0
        return found | ({"peak_memory": 3 * 2**20} if led else {})

    run = write_run(tmp_path, JOB, outcome)
    for identity in run.trials():
        device = {"type": "cpu", "name": "CPU", "workers": 1, "threads": 1}
        run.trial(identity).store.write_json("environment.json", {"device": device})
    return run


def test_lines(run: RunRecords) -> None:
    sheet = methods_table(run).sheet()
    rows = {
        row[0].partition(" [")[0]: dict(zip(sheet.head[1:], row[1:], strict=True)) for row in sheet.sections[0].rows
    }
    assert list(rows) == ["baseline", "ffsd n=2", "okddip branches n=3", "dml n=2"]
    assert list(rows["baseline"].values()) == [
        *("2", "80.00 ± 0.00", "", "1100 ± 141", "1.00", "1.00", "", "1", "1"),
        *("Baseline", "student"),
    ]
    ffsd = rows["ffsd n=2"]
    assert ffsd["n"].startswith("1 [")
    assert (ffsd["Accuracy of"], ffsd["Deploys"]) == ("Leader", "leader")
    assert (ffsd["Accuracy"], ffsd["Gain"]) == ("85.02", "5.02")
    assert (ffsd["Time ×"], ffsd["Peak (MiB)"]) == ("4.40", "3")
    parts = components(methods_table(run).lines[1].cost.row.spec.method, "resnet20", 10, 16)
    assert ffsd["Work ×"] == f"{sum(part.macs * part.number for part in parts) / parts[0].macs:.2f}"
    assert rows["okddip branches n=3"]["Time ×"] == "4.40"
    # what has not run: its operations alone
    assert {key for key, value in rows["dml n=2"].items() if value} == {"n", "Work ×"}
    assert any("out of memory" in note for note in sheet.notes)
    assert any("UNCONFIRMED OKDDip" in note for note in sheet.notes)


def test_command(run: RunRecords, capsys: pytest.CaptureFixture[str]) -> None:
    for form, expected in (("terminal", "Deploys"), ("markdown", "| ffsd n=2"), ("csv", "peak bytes")):
        assert main([run.store.location, "--format", form]) == 0
        text = capsys.readouterr().out
        assert expected in text
    found = {line["configuration"]: line for line in csv.DictReader(io.StringIO(text))}
    assert (found["baseline"]["images/s"], found["baseline"]["images/s std"]) == ("1100.00", "141.42")
    assert (found["ffsd n=2"]["peak bytes"], found["ffsd n=2"]["gain"]) == (str(3 * 2**20), "5.02")
