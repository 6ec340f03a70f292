"""The table of a run, from records alone; its numbers are computed by hand."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.tables.export import render_csv, render_markdown
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.table import Table, result_table
from ffsd_ray.report.tables.terminal import render_terminal

from helpers.synthetic_records import Outcome, approx_cell, result

BASE = """
name: small
data: {name: digits}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 10, batch_size: 64}
seed: [0, 1, 2]
"""
ALSO_BASELINE = "search: {also: [{method: {name: baseline}}]}\n"


def row_of(table: Table, configuration: str, epoch: str = "best") -> Row:
    (row,) = (row for row in table.rows if row.configuration == configuration and row.epoch == epoch)
    return row


def test_columns_hold_mean_and_sample_deviation_over_seeds(record: Any) -> None:
    accuracy = {("ffsd", 0): 96.0, ("ffsd", 1): 97.0, ("ffsd", 2): 98.0}
    accuracy |= {("baseline", 0): 93.0, ("baseline", 1): 95.0, ("baseline", 2): 94.0}
    run = record(BASE + ALSO_BASELINE, lambda spec: result(spec, (a := accuracy[spec.method.name, spec.seed]), a - 1))
    table = result_table(run)
    assert table.columns == (
        *("Baseline", "Common 1", "Common 2", "Mean of common", "Ens (any)", "Ens (logits)", "Fusion", "Leader"),
        "Gain",
    )
    row = row_of(table, "ffsd n=2")
    assert row.seeds == (0, 1, 2)
    expected = {
        "Common 1": 97.0,
        "Common 2": 97.01,
        "Leader": 97.02,
        "Fusion": 97.03,
        "Mean of common": 97.04,
        "Ens (any)": 97.05,
        "Ens (logits)": 97.06,
        "Baseline": 94.0,
    }
    assert {column: cell for column, cell in row.cells.items() if column != "Gain"} == {
        column: approx_cell(mean, 1.0) for column, mean in expected.items()
    }
    # by seed 3.02, 2.02, 4.02: neither the difference of the means' deviations nor their sum
    assert row.cells["Gain"] == approx_cell(3.02, 1.0)
    assert row_of(table, "ffsd n=2", "last").cells["Leader"] == approx_cell(96.02, 1.0)
    assert row_of(table, "baseline").cells == {"Baseline": approx_cell(94.0, 1.0)}
    assert not table.notes


def test_gain_is_taken_seed_by_seed(record: Any) -> None:
    """Where leader and baseline rise together the gain does not vary, though both do."""
    rise = {0: 0.0, 1: 1.0, 2: 3.0}
    run = record(
        BASE + ALSO_BASELINE,
        lambda spec: result(spec, 90 + rise[spec.seed] + 5 * (spec.method.name == "ffsd"), 80 + rise[spec.seed]),
    )
    assert row_of(result_table(run), "ffsd n=2").cells["Gain"] == approx_cell(5.02, 0.0)
    assert row_of(result_table(run), "ffsd n=2", "last").cells["Gain"] == approx_cell(0.02, 0.0)


def test_one_seed_has_no_deviation(record: Any) -> None:
    run = record(BASE.replace("[0, 1, 2]", "4") + ALSO_BASELINE, lambda spec: result(spec, 96.0, 95.0))
    table = result_table(run, ["best"])
    assert row_of(table, "ffsd n=2").cells["Leader"] == approx_cell(96.02, None)
    assert "| ffsd n=2 | 1 | 96.00 | 96.00 | 96.01 |" in render_markdown(table)
    assert "±" not in render_markdown(table).split("**Best epoch**")[1]


def test_dml_gains_by_the_mean_of_its_students(record: Any) -> None:
    job = BASE.replace("ffsd", "dml") + ALSO_BASELINE
    table = result_table(record(job, lambda spec: result(spec, 96.0 if spec.method.name == "dml" else 90.0, 1.0)))
    assert row_of(table, "dml n=2").cells["Gain"] == approx_cell(6.02, 0.0)
    assert "Leader" not in table.columns
    assert "Gain: Mean of common (dml) minus Baseline, seed by seed" in table.captions


def test_common_columns_grow_with_the_students(record: Any) -> None:
    job = BASE + "search: {grid: {method.students: [2, 4]}}\n"
    table = result_table(record(job, lambda spec: result(spec, 96.0, 95.0)))
    assert [column for column in table.columns if column.startswith("Common")] == [f"Common {n}" for n in (1, 2, 3, 4)]
    assert "Common 3" not in row_of(table, "ffsd n=2").cells
    assert row_of(table, "ffsd n=4").cells["Common 4"] == approx_cell(96.03, 0.0)


@pytest.mark.parametrize(
    ("baseline", "reason"),
    [
        ("{method: {name: baseline}, train.lr: 0.05}", "no gain: no completed baseline trial with the same data"),
        ("{method: {name: baseline}, data.image_size: 24}", "no gain: no completed baseline trial with the same data"),
        ("{method: {name: baseline}, backbone.name: resnet32}", "no gain: no completed baseline trial"),
        ("{method: {name: baseline}, scale.workers: 2}", "no gain: no completed baseline trial"),
        ("{method: {name: baseline}, seed: [0, 2, 7]}", "no gain: for seed 1 no completed baseline trial"),
        ("{method: {name: baseline}, seed: 2}", "no gain: for seeds 0, 1 no completed baseline trial"),
    ],
)
def test_gain_needs_a_baseline_that_matches(record: Any, baseline: str, reason: str) -> None:
    table = result_table(record(f"{BASE}search: {{also: [{baseline}]}}", lambda spec: result(spec, 96.0, 95.0)))
    row = next(row for row in table.rows if "ffsd n=2" in row.configuration)
    assert "Gain" not in row.cells
    assert "Baseline" not in row.cells
    assert row.cells["Leader"] == approx_cell(96.02, 0.0)
    (number,) = row.notes["Gain"]
    assert table.notes[number - 1].startswith(reason)


def test_where_it_is_computed_does_not_part_a_baseline(record: Any) -> None:
    job = f"{BASE}search: {{also: [{{method: {{name: baseline}}, scale.trials_at_once: 3}}]}}"
    table = result_table(record(job, lambda spec: result(spec, 96.0, 95.0)))
    assert row_of(table, "ffsd n=2").cells["Gain"] == approx_cell(0.02, 0.0)


def test_failed_and_unfinished_trials_are_holes(record: Any) -> None:
    ends: dict[int, float | str | None] = {0: 96.0, 1: "the loss term kl of leader is not finite\nsecond line", 2: None}

    def outcome(spec: TrialSpec) -> Outcome:
        if spec.method.name == "baseline":
            return ... if spec.seed else result(spec, 90.0, 90.0)
        end = ends[spec.seed]
        return result(spec, end, end) if isinstance(end, float) else end

    table = result_table(record(BASE + ALSO_BASELINE, outcome))
    row = row_of(table, "ffsd n=2")
    assert row.seeds == (0,)
    assert row.cells["Gain"] == approx_cell(6.02, None)
    assert [table.notes[number - 1] for number in row.notes["n"]] == [
        "ffsd n=2, seed 1: TrialError: the loss term kl of leader is not finite",
        "ffsd n=2: not finished for seed 2",
    ]
    (note,) = (table.notes[number - 1] for number in row_of(table, "baseline").notes["n"])
    assert note == "baseline: not finished for seeds 1, 2"  # never begun: known from the job file alone
    markdown = render_markdown(table)
    assert "| ffsd n=2 | 1 [1][2] |" in markdown
    assert "[1] ffsd n=2, seed 1: TrialError: the loss term kl of leader is not finite\n" in markdown


def test_nothing_finished_yet(record: Any) -> None:
    table = result_table(record(BASE, lambda spec: ...))
    assert table.columns == ()
    assert row_of(table, "ffsd n=2").seeds == ()
    assert "| ffsd n=2 | 0 [1] |" in render_markdown(table)
    assert next(csv.DictReader(io.StringIO(render_csv(table))))["n"] == "0"


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ("search: {grid: {method.name: [baseline, dml, ffsd]}}", ["baseline", "dml n=2", "ffsd n=2"]),
        ("search: {grid: {backbone.name: [resnet20, resnet32]}}", ["resnet20, ffsd n=2", "resnet32, ffsd n=2"]),
        ("search: {grid: {train.lr: [0.1, 0.05]}}", ["ffsd n=2, lr=0.1", "ffsd n=2, lr=0.05"]),
        (
            "search: {grid: {method.lambda_fea: [1.0, 10.0]}, also: [{method: {name: baseline}}]}",
            ["ffsd n=2, lambda_fea=1.0", "ffsd n=2, lambda_fea=10.0", "baseline"],
        ),
        (
            "search: {grid: {method.students: [2, 3]}, also: [{method.name: baseline}]}\n"
            + "report: {rows: method.students}",
            ["students=2", "students=3", "baseline"],
        ),
        (
            "search: {grid: {method.students: [2, 3], train.lr: [0.1, 0.2]}}\nreport: {rows: [method.students]}",
            ["students=2, lr=0.1", "students=2, lr=0.2", "students=3, lr=0.1", "students=3, lr=0.2"],
        ),
    ],
)
def test_rows_are_named_by_what_varies(record: Any, more: str, names: list[str]) -> None:
    table = result_table(record(BASE + more, lambda spec: result(spec, 96.0, 95.0)))
    assert [row.configuration for row in table.at("best")] == names


def test_captions_say_what_the_numbers_are_of(record: Any) -> None:
    table = result_table(record(BASE, lambda spec: result(spec, 96.0, 95.0)))
    assert table.title == "small"
    assert table.captions[:3] == (
        "digits, resnet20, 10 epochs, batch size 64, lr 0.1, fp32",
        "top-1 accuracy on the test images in %, mean ± sample standard deviation over n seeds; seed 0, 1, 2",
        "best epoch: each column's own, chosen on the test images, as the paper did",
    )


def test_validation_images_chose_the_epoch(record: Any) -> None:
    job = BASE.replace("digits", "digits, validation: 0.1")
    table = result_table(record(job, lambda spec: result(spec, 96.0, 95.0, selection="val")))
    assert "best epoch: each column's own, chosen on held-out validation images" in table.captions


def test_captions_say_what_was_not_used(record: Any) -> None:
    """Neither a part of the data set nor epochs that were not evaluated go without a word."""
    job = BASE.replace("digits", "digits, train_per_class: 20, test_per_class: 5, test_share: 0.9, image_size: 8")
    job = job.replace("epochs: 10,", "epochs: 10, evaluate_every: 5,")
    captions = result_table(record(job, lambda spec: result(spec, 96.0, 95.0))).captions
    assert captions[0].startswith(
        "digits, at most 20 train and 5 test images a class, test_share 0.9, image_size 8, resnet20, "
    )
    assert captions[2].endswith("as the paper did among those evaluated (train.evaluate_every 5)")


def test_files_name_the_data(record: Any) -> None:
    job = BASE.replace("name: digits", "name: image_folder, root: pictures/birds, image_size: 32")
    assert result_table(record(job, lambda spec: None)).captions[0].startswith("image_folder (pictures/birds), ")


def test_csv_is_for_machines(record: Any) -> None:
    run = record(BASE + ALSO_BASELINE, lambda spec: result(spec, 90.0 + spec.seed, 80.0))
    rows = list(csv.DictReader(io.StringIO(render_csv(result_table(run)))))
    assert [(row["configuration"], row["epoch"]) for row in rows] == [
        (name, epoch) for epoch in ("best", "last") for name in ("ffsd n=2", "baseline")
    ]
    assert (rows[0]["Leader"], rows[0]["Leader std"], rows[0]["n"], rows[0]["seeds"]) == ("91.02", "1", "3", "0; 1; 2")
    assert rows[0]["Gain"] == "0.02"
    trials = Path(run.store.location) / "trials"
    seeds = [json.loads((trials / trial / "spec.json").read_text())["seed"] for trial in rows[0]["trials"].split("; ")]
    assert seeds == [0, 1, 2]
    assert rows[1]["Leader"] == ""


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_of_any_width_shows_every_number(record: Any, width: int) -> None:
    """Rich would leave out or cut what does not fit."""
    job = BASE + "search: {grid: {method.students: [2, 6]}, also: [{method: {name: baseline}}]}\n"
    table = result_table(record(job, lambda spec: result(spec, 90.0 + spec.seed, 80.0 + spec.seed)))
    console = Console(width=width, file=io.StringIO())
    console.print(render_terminal(table))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for row in table.rows:
        for cell in row.cells.values():
            assert f"{cell.mean:.2f}" in shown
    numbers = sum(len(row.cells) for row in table.rows)
    assert shown.count("±") - shown.count("mean ±") == numbers


def test_command(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(BASE + ALSO_BASELINE, lambda spec: result(spec, 90.0, 80.0))
    assert main([run.store.location, "--format", "markdown", "--epoch", "last"]) == 0
    shown = capsys.readouterr().out
    assert "**Last epoch**" in shown
    assert "est epoch" not in shown
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no run here" in capsys.readouterr().err


@pytest.mark.thorough
def test_the_report_needs_neither_ray_nor_the_images(record: Any) -> None:
    job = BASE.replace("name: digits", "name: parquet, train: gone.parquet, test: gone.parquet, image_size: 32")
    run = record(job, lambda spec: result(spec, 90.0, 80.0))
    program = (
        "import sys; sys.modules['ray'] = None; from ffsd_ray.report.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, run.store.location, "--format", "csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "90.02" in done.stdout
