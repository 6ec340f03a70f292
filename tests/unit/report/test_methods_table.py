"""The table of what methods reach and cost, from made-up records computed by hand."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from ffsd_ray.bench.record import Record
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.methods import MethodsTable, main, methods_table

from helpers.flops import flops_per_image
from helpers.synthetic_records import Outcome, result, write_run

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

    return write_run(tmp_path, JOB, outcome)


def test_lines(run: RunRecords) -> None:
    text = methods_table(run).text()
    rows = {row[0].partition(" [")[0]: dict(zip(text.head[1:], row[1:], strict=True)) for row in text.sections[0].rows}
    assert list(rows) == ["baseline", "ffsd n=2", "okddip branches n=3", "dml n=2"]
    assert list(rows["baseline"].values()) == [
        *("2", "80.00 ± 0.00", "", "1.00", "1.00", "1.00", "1100 ± 141", "", "1", "1"),
        *("Baseline", "student"),
    ]
    ffsd = rows["ffsd n=2"]
    assert ffsd["n"].startswith("1 [")
    assert (ffsd["Accuracy of"], ffsd["Deploys"]) == ("Leader", "leader")
    assert (ffsd["Accuracy"], ffsd["Gain"]) == ("85.02", "5.02")
    assert (ffsd["Time ×"], ffsd["÷ members"], ffsd["Peak (MiB)"]) == ("4.40", "1.47", "3")
    alone, led = (line.cost.row.spec.method for line in methods_table(run).lines[:2])
    step = flops_per_image(led, "resnet20", 10, 16) / flops_per_image(alone, "resnet20", 10, 16)
    assert ffsd["Work ×"] == f"{step:.2f}", "of a training step, not of a forward pass"
    assert rows["okddip branches n=3"]["Time ×"] == "4.40"
    # what has not run: its operations alone
    assert {key for key, value in rows["dml n=2"].items() if value} == {"n", "Work ×"}
    assert any("out of memory" in note for note in text.notes)
    assert any("UNCONFIRMED OKDDip" in note for note in text.notes)


def test_command(run: RunRecords, capsys: pytest.CaptureFixture[str]) -> None:
    for form, expected in (("terminal", "Deploys"), ("markdown", "| ffsd n=2"), ("csv", "peak bytes")):
        assert main([run.store.location, "--format", form]) == 0
        text = capsys.readouterr().out
        assert expected in text
    found = {line["configuration"]: line for line in csv.DictReader(io.StringIO(text))}
    assert (found["baseline"]["images/s"], found["baseline"]["images/s std"]) == ("1100", "141.421")
    assert (found["ffsd n=2"]["peak bytes"], found["ffsd n=2"]["gain"]) == (str(3 * 2**20), "5.02")
    for line in found.values():
        trials = [trial for trial in line["trials"].split("; ") if trial]
        assert len(trials) == int(line["n"])
        assert all((Path(run.store.location) / "trials" / trial / "result.json").exists() for trial in trials)


def rows_of(table: MethodsTable) -> dict[str, dict[str, str]]:
    text = table.text()
    return {row[0].partition(" [")[0]: dict(zip(text.head, row, strict=True)) for row in text.sections[0].rows}


def test_each_row_has_its_own_baseline(tmp_path: Path) -> None:
    """With the same images, precision and backbone: not whichever baseline came last."""
    grid = "{data.image_size: [8, 24], train.precision: [fp32, bf16], method: [{name: baseline}, {name: dml}]}"
    also = "[{method: {name: dml}, backbone.name: resnet32}]"
    job = JOB[: JOB.index("search")] + f"search: {{grid: {grid}, also: {also}}}\n"

    def outcome(spec: TrialSpec) -> Outcome:
        found = result(spec, 90, 80)
        large, half, several = (
            getattr(spec.data, "image_size", None) == 24,
            spec.train.precision == "bf16",
            spec.method.name == "dml",
        )
        found["last"]["images_per_second"] = 1000.0 / (8 if large else 1) * (3 if half else 1) / (2 if several else 1)
        return found

    rows = rows_of(methods_table(write_run(tmp_path, job, outcome)))
    assert len(rows) == 9
    for name, row in rows.items():
        expected = ["", "", ""] if "resnet32" in name else ["2.00"] * 2 + ["1.00"] if "dml" in name else ["1.00"] * 3
        assert [row["Time ×"], row["Work ×"], row["÷ members"]] == expected, name


def test_networks_trained_before_are_told(tmp_path: Path) -> None:
    methods = "[{name: baseline}, {name: kd, teacher: resnet32}, {name: end2, ensemble: 3}]"
    job = JOB[: JOB.index("search")] + f"search: {{grid: {{method: {methods}}}}}\n"
    table = methods_table(write_run(tmp_path, job, lambda spec: ...))
    rows = rows_of(table)
    assert rows["kd from resnet32"]["Trained before"] == "1 × resnet32"
    assert rows["end2 of 3"]["Trained before"] == "3 × resnet20"
    assert rows["baseline"]["Trained before"] == ""
    assert any("Trained before: networks" in caption for caption in table.captions)
    assert "Images/s" not in table.text().head, "nothing has completed"
    assert any("not finished" in note for note in table.notes)


def test_a_search_that_has_chosen_nothing_yet(tmp_path: Path) -> None:
    run = write_run(tmp_path, JOB, lambda spec: ...)
    run.begin(run.text(), run.job(), [], {})
    assert methods_table(run).text().head == ("Configuration", "n")


def test_times_of_a_measurement(run: RunRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a record of `ffsd_ray.bench` in place of the run's."""
    spec, kind = {spec.method.name: spec for spec in run.specs().values()}, torch.device("cpu")
    job, other = (
        Record(tmp_path / "job.json", "job", "a test", kind),
        Record(tmp_path / "gpu.json", "gpu suite", "", kind),
    )

    def setting(name: str, step: float, networks: int) -> dict[str, Any]:
        figures = {"step": {"n": 7, "median": step, "quartiles": [step, step]}, "peak_bytes": 5 * 2**20}
        figures |= {"images_per_second": 64 / step, "networks": networks, "literal": False}
        return figures | {"spec": spec[name].configuration().model_dump()}

    job.add(
        "a test",
        {
            "settings": {
                "a": setting("baseline", 0.05, 1),
                "b": setting("ffsd", 0.2, 3),
                "c": {"step": {}, "literal": False, "spec": {}},
            }
        },
    )
    capsys.readouterr()
    assert main([run.store.location, "--bench", str(job.path)]) == 2
    assert "measure again" in capsys.readouterr().err
    del job.points["a test"]["settings"]["c"]
    job.write()
    table = methods_table(run, job.path)
    ffsd = rows_of(table)["ffsd n=2"]
    columns = ("Step (ms)", "Time ×", "÷ members", "Images/s", "Peak (MiB)")
    assert [ffsd[column] for column in columns] == ["200", "4.00", "1.33", "320", "5"]
    assert rows_of(table)["okddip branches n=3"]["Time ×"] == ""
    assert any("median of 7 steps" in caption for caption in table.captions)

    job.points["a test"]["settings"] = {"b": setting("ffsd", 0.2, 3)}
    job.points["a test"]["settings"]["b"]["spec"]["train"]["lr"] = 0.3
    job.write()
    for path, said in ((job.path, "no configuration of this run"), (other.path, "record of a job")):
        assert main([run.store.location, "--bench", str(path)]) == 2
        assert said in capsys.readouterr().err
