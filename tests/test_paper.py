"""The paper's own numbers, and a run beside them; ours are computed by hand."""

import csv
import io
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ffsd_ray.backbones import BACKBONES
from ffsd_ray.methods import METHODS
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.comparison import Comparison, Entry, compare
from ffsd_ray.report.paper import matches, paper_tables, printed_baseline
from ffsd_ray.report.render import render_csv, render_markdown, render_terminal
from ffsd_ray.spec.load import load_job
from ffsd_ray.spec.trial import TrialSpec

from made_up import Outcome, result, write_run

JOBS = Path(__file__).resolve().parents[1] / "jobs"

CIFAR = """
name: mine
data: {name: cifar100}
backbone: {name: resnet32}
method: {name: ffsd}
seed: [0, 1, 2]
search: {also: [{method: {name: baseline}}]}
"""
DIGITS = CIFAR.replace("cifar100", "digits")


@pytest.fixture
def record(tmp_path: Path) -> Callable[[str, Callable[[TrialSpec], Outcome]], RunRecords]:
    return partial(write_run, tmp_path)


def spread(spec: TrialSpec) -> dict[str, Any]:
    """Leader 74.75, 74.85, 74.95 (std 0.1); fusion 70, 71, 72 (std 1); baseline 70 for every seed."""
    if spec.method.name == "baseline":
        return result(spec, 70.0, 69.0)
    return result(spec, 74.0, 73.0, series={"leader": 74.75 + spec.seed / 10, "fusion": 70.0 + spec.seed})


def entry_of(comparison: Comparison, row: str, measure: str) -> Entry:
    (entry,) = (entry for entry in comparison.entries if (entry.row, entry.measure) == (row, measure))
    return entry


def notes_on(comparison: Comparison, entry: Entry, about: str) -> list[str]:
    return [comparison.notes[number - 1] for number in entry.notes.get(about, ())]


def test_every_number_is_printed_in_the_paper(shared: Path) -> None:
    printed = re.findall(r"\d+\.\d+ ± \d+\.\d+|\d+(?:\.\d+)?", (shared / "paper.md").read_text())
    alone = {number for text in printed for number in text.split(" ± ")}
    for table in paper_tables().values():
        for row in table.rows:
            for column, number in row.printed.items():
                mean = f"{number.cell.mean:.{number.decimals}f}"
                assert mean in alone, (table.title, row.label, column)
                if number.cell.std is not None:
                    assert f"{mean} ± {number.cell.std:.2f}" in printed, (table.title, row.label, column)


def test_a_gain_is_the_difference_of_what_is_printed_or_a_note_says_otherwise() -> None:
    for table in paper_tables().values():
        for row in table.rows:
            gain, baseline = row.printed.get("Gain"), printed_baseline(row.model)
            after = row.printed.get("Leader", row.printed.get("Accuracy"))
            if gain is not None and baseline is not None and after is not None:
                follows = math.isclose(gain.cell.mean, after.cell.mean - baseline.cell.mean, abs_tol=1e-9)
                # Table II's 3.84 follows; it is Table I that prints another gain beside the same accuracies.
                assert follows != ("Gain" in row.notes) or gain.cell.mean == 3.84, row.label


def test_a_number_printed_twice_is_the_same_or_a_note_says_otherwise() -> None:
    seen: dict[tuple[str, str, str], float] = {}
    for table in paper_tables().values():
        for row in table.rows:
            for column, number in row.printed.items():
                named = "Leader" if column == "Accuracy" and row.method == "FFSD" else column
                before = seen.setdefault((row.model, row.method, named), number.cell.mean)
                assert before == number.cell.mean or column in row.notes, (table.title, row.label, column)


def test_what_is_inconsistent_in_the_paper_stays_as_printed() -> None:
    tables = paper_tables()
    printed = {
        (name, row.label, column): f"{number.cell.mean:.2f}"
        for name, table in tables.items()
        for row in table.rows
        for column, number in row.printed.items()
    }
    assert printed["table1", "WRN-16-2, FFSD", "Gain"] == "3.83"
    assert printed["table2", "WRN-16-2, FFSD", "Gain"] == "3.84"
    assert printed["table1", "ResNet-32, FFSD", "Gain"] == "4.90"
    assert printed["table2", "WRN-16-2, AT from WRN-40-2", "Accuracy"] == "73.70"
    assert any("73.71" in note for row in tables["table2"].rows for note in row.notes.values())
    assert any("WRN-16-1" in caption for caption in tables["table7"].captions)


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("table1", "table1"),
        ("table2", "table2"),
        ("table3", "table3"),
        ("table4", "table4"),
        ("table5", "table5"),
        ("table6", "table6"),
        ("table7", "table7"),
        ("ablations", "ablations"),
        ("vgg16", "vgg16_end2"),
        ("fig6", "fig6"),
    ],
)
def test_the_job_files_have_every_row_whose_method_there_is(name: str, job: str) -> None:
    table, trials = paper_tables()[name], load_job(JOBS / f"{job}.yaml").trials
    assert all(matches(spec, table.data.match) for spec in trials)
    for row in table.rows:
        assert row.match["backbone.name"] in BACKBONES
        if row.match["method.name"] in METHODS:
            found = [spec for spec in trials if matches(spec, row.match)]
            assert found, row.label
            # Nothing but seeds tells them apart.
            assert len({spec.model_copy(update={"seed": 0}).identity() for spec in found}) == 1, row.label


def test_ours_the_papers_and_the_difference(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table1")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader")
    assert leader.ours == pytest.approx((74.85, 0.1))
    assert leader.paper.cell == (74.85, 0.05)
    assert leader.seeds == (0, 1, 2)
    assert leader.difference == pytest.approx(0.0, abs=1e-9)
    assert leader.within is True
    assert entry_of(comparison, "ResNet-32, FFSD", "Gain").difference == pytest.approx(4.85 - 4.90)
    assert entry_of(comparison, "ResNet-32, FFSD", "Baseline").ours == (70.0, 0.0)
    # 71 ± 1 against 76.04 ± 0.17
    assert entry_of(comparison, "ResNet-32, FFSD", "Fusion").within is False
    assert comparison.title == "mine beside the paper's Table I, results on CIFAR-100"
    assert not any(caption.startswith("not the paper's protocol") for caption in comparison.captions)


@pytest.mark.parametrize(
    ("shift", "within"),
    [(0.0, True), (2 * math.hypot(0.1, 0.05), True), (0.224, False), (-0.223, True), (-0.224, False)],
)
def test_both_spreads_count(record: Any, shift: float, within: bool) -> None:
    """2·sqrt(0.1² + 0.05²) = 0.2236."""

    def outcome(spec: TrialSpec) -> Outcome:
        return result(spec, 70.0, 70.0, series={"leader": 74.85 + shift + (spec.seed - 1) / 10})

    comparison = compare(record(CIFAR.partition("search")[0], outcome), "table1")
    assert entry_of(comparison, "ResNet-32, FFSD", "Leader").within is within


def test_a_missing_spread_is_marked(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table2")
    accuracy = entry_of(comparison, "ResNet-32, FFSD", "Accuracy")
    assert accuracy.within is True
    assert notes_on(comparison, accuracy, "paper") == ["no standard deviation in the paper: taken as 0"]
    baseline = entry_of(comparison, "ResNet-32, Baseline", "Accuracy")
    assert baseline.ours == (70.0, 0.0)
    assert baseline.within is False
    gain = entry_of(comparison, "ResNet-32, FFSD", "Gain")
    assert any("4.89" in note for note in notes_on(comparison, gain, "paper"))


def test_one_seed_has_no_verdict(record: Any) -> None:
    comparison = compare(record(CIFAR.replace("[0, 1, 2]", "1"), spread), "table1")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader")
    assert leader.ours == (pytest.approx(74.85), None)
    assert leader.within is None
    assert notes_on(comparison, leader, "within") == ["one seed: no spread, so no verdict"]


def test_last_epoch(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table1", "last")
    assert entry_of(comparison, "ResNet-32, FFSD", "Common 1").ours == (73.0, 0.0)
    assert "**Last epoch**" in render_markdown(comparison)


@pytest.mark.parametrize("name", list(paper_tables()))
def test_other_data_compare_gains_alone(record: Any, name: str) -> None:
    comparison = compare(record(DIGITS, spread), name)
    assert "digits, not the paper's" in comparison.title
    assert comparison.title.endswith(": gains only)")
    assert {entry.measure for entry in comparison.entries if "ain" not in entry.measure} == set()
    for entry in comparison.entries:
        assert entry.paper.cell.mean < 15
    for text in (render_markdown(comparison), render_csv(comparison)):
        assert "74.85" not in text.replace("74.85 − 69.96", "")


def test_gains_that_the_paper_does_not_print_follow_from_what_it_does(record: Any) -> None:
    comparison = compare(record(DIGITS, spread), "table6")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader, gain")
    assert leader.paper.cell == (pytest.approx(74.85 - 69.96), None)
    assert leader.ours == pytest.approx((4.85, 0.1))
    assert leader.within is True
    assert "difference of two means that the paper prints" in notes_on(comparison, leader, "paper")
    fusion = entry_of(comparison, "ResNet-32, FFSD", "Fusion, gain")
    assert fusion.ours == pytest.approx((1.0, 1.0))
    # where the paper prints a gain, that one counts
    table1 = compare(RunRecords(record(DIGITS, spread).store), "table1")
    assert entry_of(table1, "ResNet-32, FFSD", "Gain").paper.cell == (4.90, 0.25)
    assert "Leader, gain" not in {entry.measure for entry in table1.entries}


def test_no_printed_baseline_no_gain(record: Any) -> None:
    comparison = compare(
        record(DIGITS.replace("digits", "digits, image_size: 32").replace("resnet32", "vgg-16"), spread), "vgg16"
    )
    assert comparison.entries == ()
    assert "the paper prints no baseline for VGG-16: no gain to compare" in comparison.captions
    console = Console(width=80, file=io.StringIO())
    console.print(render_terminal(comparison))
    assert "VGG-16" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("classes", "measures"), [(1000, {"Accuracy"}), (20, {"Gain"})])
def test_imagenet_is_told_by_its_classes(record: Any, classes: int, measures: set[str]) -> None:
    job = """
name: mine
data: {name: image_folder, root: somewhere, image_size: 224}
backbone: {name: resnet18}
method: {name: dml}
search: {also: [{method: {name: baseline}}]}
"""
    run = record(job, lambda spec: result(spec, 70.0, 70.0) | {"classes": classes})
    comparison = compare(run, "table3")
    found = {entry.measure for entry in comparison.entries if entry.row == "ResNet-18, DML"}
    assert found == measures | {"Gain"}
    assert ("not the paper's ImageNet" in comparison.title) == (classes != 1000)


def test_what_differs_from_the_protocol_is_said(record: Any) -> None:
    job = CIFAR.replace("{name: ffsd}", "{name: ffsd, lambda_fea: 1}\ntrain: {epochs: 10, batch_size: 64, lr: 0.05}")
    comparison = compare(record(job, spread), "table1")
    (said,) = (caption for caption in comparison.captions if caption.startswith("not the paper's protocol"))
    assert said == (
        "not the paper's protocol: epochs 10 (paper: 300); batch_size 64 (paper: 128); lr 0.05 (paper: 0.1); "
        "milestones [5, 7] (paper: [150, 225]); lambda_fea 1.0 (paper: 10.0)"
    )


def test_rows_that_the_run_lacks(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table1")
    markdown = render_markdown(comparison)
    assert markdown.count("missing") == 6
    assert "| WRN-40-2, FFSD |  | missing | 0 |  |  |  |" in markdown
    rows = list(csv.DictReader(io.StringIO(render_csv(comparison))))
    (lacking,) = (row for row in rows if (row["row"], row["measure"]) == ("WRN-40-2, FFSD", "Leader"))
    assert (lacking["ours"], lacking["paper"], lacking["paper std"], lacking["within"]) == ("", "79.14", "0.03", "")
    (ours,) = (row for row in rows if (row["row"], row["measure"]) == ("ResNet-32, FFSD", "Leader"))
    assert (ours["ours"], ours["ours std"], ours["difference"], ours["within"], ours["seeds"]) == (
        *("74.85", "0.10", "0.00"),
        *("yes", "0 1 2"),
    )


def test_failed_trials_are_told(record: Any) -> None:
    def outcome(spec: TrialSpec) -> Outcome:
        return "the loss is not finite" if spec.method.name == "ffsd" and spec.seed else spread(spec)

    comparison = compare(record(CIFAR, outcome), "table1")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader")
    assert leader.seeds == (0,)
    assert [note.partition(": ")[2] for note in notes_on(comparison, leader, "n")] == [
        "TrialError: the loss is not finite"
    ] * 2
    run = record(CIFAR.replace("mine", "all_failed").replace("ffsd}", "ffsd, alpha: 2}"), lambda spec: "it failed")
    assert "| missing | 0 [1][2][3] |" in render_markdown(compare(run, "table1"))


def test_a_gain_without_a_baseline_says_why(record: Any) -> None:
    comparison = compare(record(CIFAR.partition("search")[0], spread), "table1")
    gain = entry_of(comparison, "ResNet-32, FFSD", "Gain")
    assert gain.ours is None
    assert notes_on(comparison, gain, "ours")[0].startswith("no gain: no completed baseline trial")


def test_two_configurations_of_one_row_are_both_shown(record: Any) -> None:
    job = CIFAR.replace("{also", "{grid: {method.formulation: [published, paper]}, also")
    comparison = compare(record(job, spread), "table1")
    rows = {entry.row for entry in comparison.entries if entry.ours is not None}
    assert rows == {"ResNet-32, FFSD (ffsd n=2)", "ResNet-32, FFSD (ffsd n=2 (paper))"}
    assert "formulation: published / paper" in comparison.captions


@pytest.mark.parametrize(
    ("name", "settings", "row"),
    [
        ("table4", "diversity: none, self_distillation: none", "ResNet-32, No diversity (DML)"),
        ("table6", "diversity: l2, self_distillation: none", "ResNet-32, L2"),
        ("table6", "diversity: l2_last", "ResNet-32, L2 with SD"),
        ("table6", "self_distillation: none", "ResNet-32, FFSD w/o SD"),
        ("ablations", "self_distillation: students", "ResNet-32, FFSD, SD for students only"),
        ("ablations", "self_distillation: leader", "ResNet-32, FFSD, SD for leader only"),
        ("ablations", "fusion: false", "ResNet-32, FFSD w/o fusion"),
        ("fig6", "students: 6", "ResNet-32, FFSD, six students"),
    ],
)
def test_a_row_is_found_by_its_settings(record: Any, name: str, settings: str, row: str) -> None:
    job = CIFAR.replace("{name: ffsd}", f"{{name: ffsd, {settings}}}")
    comparison = compare(record(job, spread), name)
    assert {entry.row for entry in comparison.entries if entry.seeds} == {row}


def test_table5_sets_the_leader_beside_the_students(record: Any) -> None:
    job = CIFAR.replace("{name: ffsd}", "{name: dml}").replace("also: [", "also: [{method.leader: true}, ")
    comparison = compare(record(job, lambda spec: result(spec, 73.0, 70.0)), "table5")
    # students_mean and leader come fourth and third in the made-up result
    assert entry_of(comparison, "ResNet-32, DML", "Accuracy").ours == pytest.approx((73.02, 0.0))
    assert entry_of(comparison, "ResNet-32, DML + leader", "Accuracy").ours == pytest.approx((73.02, 0.0))


def test_cosine(record: Any) -> None:
    alike = {"similarity": {"maps": 0.25, "attention": 0.9}}
    comparison = compare(record(CIFAR, lambda spec: dict(spread(spec)) | alike), "table4")
    cosine = entry_of(comparison, "ResNet-32, FFSD", "Cosine")
    assert cosine.ours == (0.25, 0.0)
    assert "| 0.2500 ± 0.0000 | 3 | 0.2550 [1] | -0.0050 | no |" in render_markdown(comparison).replace("[2]", "[1]")


def test_table7_counts_operations(record: Any) -> None:
    comparison = compare(record(CIFAR.replace("resnet32", "wrn-16-2"), spread), "table7")
    ours = {entry.measure: entry.ours for entry in comparison.entries if entry.seeds}
    assert ours["Training time (h)"] == (1.0, 0.0)
    assert ours["Students"] == (3, None)
    assert ours["Student FLOPs (M)"] == (pytest.approx(129.4, abs=0.05), None)
    assert ours["Self-distillation modules"] == (2, None)
    total, parts = ours["Total FLOPs (M)"], [ours["Student FLOPs (M)"], ours["Self-distillation FLOPs (M)"]]
    assert total is not None
    assert total.mean == pytest.approx(
        sum(n * p.mean for n, p in zip((3, 2), parts, strict=True) if p) + 2.26, abs=0.01
    )
    assert not any(entry.within is not None for entry in comparison.entries)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_of_any_width_shows_every_number(record: Any, width: int) -> None:
    comparison = compare(record(CIFAR, spread), "table1")
    console = Console(width=width, file=io.StringIO())
    console.print(render_terminal(comparison))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for entry in comparison.entries:
        if entry.ours is not None:
            assert f"{entry.ours.mean:.2f}" in shown
            assert f"{entry.paper.cell.mean:.2f}" in shown


def test_command(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(CIFAR, spread)
    assert main([run.store.location, "--paper", "table1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("row,measure,epoch,n,seeds,ours,ours std,paper,paper std,difference")
    assert main([run.store.location, "--paper", "fig6"]) == 0
    assert "Fig. 6" in capsys.readouterr().out
    for wrong in (
        ["--paper", "table8"],
        ["--paper", "table1", "--epoch", "both"],
        ["--paper", "table1", "--out", "x.png"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main([run.store.location, *wrong])
        assert stopped.value.code == 2
