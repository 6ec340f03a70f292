"""The paper's own numbers, and a run beside them; ours are computed by hand."""

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console
from scipy.optimize import brentq
from scipy.stats import t, ttest_ind_from_stats

from ffsd_ray.backbones import BACKBONES
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec, identifies
from ffsd_ray.config.varying import varying
from ffsd_ray.methods import METHODS
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.paper.compare import Comparison, Entry, compare
from ffsd_ray.report.paper.pairs import claimed, gains, numbers
from ffsd_ray.report.paper.protocol import differences, protocol_of
from ffsd_ray.report.paper.values import PaperRow, PaperTable, matches, paper_tables, printed_baseline
from ffsd_ray.report.tables.export import render_csv, render_markdown
from ffsd_ray.report.tables.terminal import render_terminal

from helpers.paths import JOBS
from helpers.synthetic_records import Outcome, approx_cell, result

CIFAR = """
name: mine
data: {name: cifar100}
backbone: {name: resnet32}
method: {name: ffsd}
seed: [0, 1, 2]
search: {also: [{method: {name: baseline}}]}
"""
DIGITS = CIFAR.replace("cifar100", "digits")

#: In which keys the trials of a row differ in the job files, besides the seed: KDCL's target, which decides on held-out
#: images, and with them its baseline.
OPEN = {"table2": {"data.validation", "method.target"}}


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
            # Nothing but seeds tells them apart, and what the paper leaves open.
            assert set(varying(found)) <= {"seed", *OPEN.get(name, ())}, row.label


def test_ours_the_papers_and_the_difference(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table1")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader")
    assert leader.ours == pytest.approx((74.85, 0.1))
    assert leader.paper.cell == (74.85, 0.05)
    assert leader.seeds == (0, 1, 2)
    assert leader.theirs == approx_cell(74.85, 0.05 * math.sqrt(3 / 2))
    assert leader.difference == pytest.approx(0.0, abs=1e-9)
    assert leader.within == "yes"
    assert entry_of(comparison, "ResNet-32, FFSD", "Gain").difference == pytest.approx(4.85 - 4.90)
    assert entry_of(comparison, "ResNet-32, FFSD", "Baseline").ours == (70.0, 0.0)
    # 71 ± 1 against 76.04 ± 0.17
    assert entry_of(comparison, "ResNet-32, FFSD", "Fusion").within == "no"
    assert comparison.title == "mine beside the paper's Table I, results on CIFAR-100"
    assert not any(note.startswith("not the paper's protocol") for note in comparison.notes)


def margin(std: float, n: int, printed: float | None) -> float:
    """Welch's, by scipy's own root of the two-sided p value at 0.05; the paper's three runs have `printed`·√(3/2)."""

    def excess(shift: float) -> float:
        if printed is None:
            return float(2 * t.sf(shift / (std / math.sqrt(n)), n - 1)) - 0.05
        theirs = printed * math.sqrt(3 / 2)
        return float(ttest_ind_from_stats(shift, std, n, 0, theirs, 3, equal_var=False).pvalue) - 0.05

    return float(brentq(excess, 1e-9, 1e4, xtol=1e-12))


def led(mean: float, std: float) -> Callable[[TrialSpec], Outcome]:
    """Three seeds whose leader has this mean and sample standard deviation; baseline 70."""

    def outcome(spec: TrialSpec) -> Outcome:
        alone = result(spec, 70.0, 70.0)
        series = {"leader": mean + (spec.seed - 1) * std}
        return alone if spec.method.name == "baseline" else result(spec, 70.0, 70.0, series=series)

    return outcome


@pytest.mark.parametrize("std", [0.1, 0.6])
@pytest.mark.parametrize("sign", [-1, 1])
def test_both_spreads_count(record: Any, std: float, sign: int) -> None:
    """The margin is that of Welch's test, with the paper's deviation (printed 0.05) made a sample's."""
    wanted = margin(std, 3, 0.05)
    for part, within in ((0.0, "yes"), (0.999, "yes"), (1.001, "no")):
        run = record(CIFAR.replace("mine", f"mine{part}"), led(74.85 + sign * part * wanted, std))
        leader = entry_of(compare(run, "table1"), "ResNet-32, FFSD", "Leader")
        assert leader.margin == pytest.approx(wanted, rel=1e-6)
        assert leader.within == within


@pytest.mark.parametrize(
    ("mean", "std", "within"),
    [
        (74.85, 0.9, "yes"),
        # 2·m = 4.97 > 4.89, the gain that the paper claims
        (74.85, 1.0, "too noisy to say"),
        (72.5, 1.0, "too noisy to say"),
        (72.3, 1.0, "no"),
        # 36 points off, and no statement: the interval is 99 points wide
        (38.85, 20.0, "too noisy to say"),
        (38.85, 10.0, "no"),
    ],
)
def test_a_spread_as_large_as_the_claim_is_no_agreement(record: Any, mean: float, std: float, within: str) -> None:
    leader = entry_of(compare(record(CIFAR, led(mean, std)), "table1"), "ResNet-32, FFSD", "Leader")
    assert leader.within == within
    assert within != "no" or abs(mean - 74.85) > margin(std, 3, 0.05)


def test_a_smaller_claim_asks_for_a_smaller_spread(record: Any) -> None:
    """AT gains 1.27 points in the paper, where FFSD gains 4.89: a deviation of 0.3 tells the one and not the other."""
    job = CIFAR.replace("{name: ffsd}", "{name: at, teacher: resnet56}")

    def outcome(spec: TrialSpec) -> Outcome:
        shift = (spec.seed - 1) * 0.3
        return result(spec, 70.0, 70.0, series={"student": 71.23 + shift if spec.method.name == "at" else 70.0})

    entry = entry_of(compare(record(job, outcome), "table2"), "ResNet-32, AT from ResNet-56", "Accuracy")
    assert entry.margin == pytest.approx(margin(0.3, 3, None))
    assert entry.difference == pytest.approx(0.0, abs=1e-9)
    assert entry.within == "too noisy to say"


def test_every_number_that_is_judged_has_a_claim() -> None:
    for table in paper_tables().values():
        for row in table.rows if table.no_verdict is None else ():
            for pair in (*numbers(table, row, None), *gains(table, row, None)):
                assert pair.claim is not None, (table.title, row.label, pair.measure)
                assert pair.claim > 0
                assert pair.paper.cell.std is None or table.runs == 3


@pytest.mark.parametrize(
    ("name", "row", "column", "claim"),
    [
        ("table1", "ResNet-32, FFSD", "Gain", 4.90),
        ("table1", "ResNet-32, FFSD", "Leader", 74.85 - 69.96),
        ("table1", "ResNet-32, FFSD", "Common 1", 74.30 - 69.96),
        ("table1", "ResNet-32, FFSD", "Baseline", 4.90),
        ("table2", "WRN-16-2, Baseline", "Accuracy", 1.73),
        ("table3", "ResNet-18, DML", "Accuracy", 0.1),
        ("table4", "ResNet-32, L2", "Cosine", 0.2550 - 0.2351),
        ("vgg16", "VGG-16, FFSD", "Accuracy", 75.87 - 73.7),
        ("fig6", "ResNet-32, FFSD, six students", "Fusion", 78.26 - 69.96),
    ],
)
def test_what_the_paper_claims_with_a_number(name: str, row: str, column: str, claim: float) -> None:
    table = paper_tables()[name]
    (wanted,) = (one for one in table.rows if one.label == row)
    assert claimed(table, wanted, column) == pytest.approx(claim)


def test_the_papers_deviation_is_shown_as_a_samples(record: Any) -> None:
    """0.30 of three runs is the population's: 0.37 is the sample's, beside which ours is put."""
    comparison = compare(record(CIFAR, spread), "table1")
    assert "69.96 ± 0.37" in render_markdown(comparison)
    assert "69.96 ± 0.30" not in render_markdown(comparison)
    assert any("√(3/2) times what is printed" in caption for caption in comparison.captions)
    rows = list(csv.DictReader(io.StringIO(render_csv(comparison))))
    (baseline,) = (row for row in rows if (row["row"], row["measure"]) == ("ResNet-32, FFSD", "Baseline"))
    assert (baseline["paper std"], baseline["printed std"]) == ("0.367423", "0.3")


def test_a_missing_spread_is_marked(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table2")
    accuracy = entry_of(comparison, "ResNet-32, FFSD", "Accuracy")
    assert accuracy.within == "yes"
    assert notes_on(comparison, accuracy, "paper") == ["no standard deviation in the paper: taken as 0"]
    baseline = entry_of(comparison, "ResNet-32, Baseline", "Accuracy")
    assert baseline.ours == (70.0, 0.0)
    assert baseline.within == "no"
    gain = entry_of(comparison, "ResNet-32, FFSD", "Gain")
    assert any("4.89" in note for note in notes_on(comparison, gain, "paper"))


def test_one_seed_is_too_noisy(record: Any) -> None:
    comparison = compare(record(CIFAR.replace("[0, 1, 2]", "1"), spread), "table1")
    leader = entry_of(comparison, "ResNet-32, FFSD", "Leader")
    assert leader.ours == approx_cell(74.85, None)
    assert (leader.margin, leader.within) == (None, "too noisy to say")
    assert notes_on(comparison, leader, "within") == ["one seed: no spread to judge by"]


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
    assert leader.paper.cell == approx_cell(74.85 - 69.96, None)
    assert leader.ours == pytest.approx((4.85, 0.1))
    assert leader.within == "yes"
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
    for measure in ("Leader", "Gain"):
        (said,) = notes_on(comparison, entry_of(comparison, "ResNet-32, FFSD", measure), "ours")
    assert said == (
        "not the paper's protocol: method.lambda_fea 1.0 (protocol: 10.0); train.epochs 10 (protocol: 300); "
        "train.batch_size 64 (protocol: 128); train.lr 0.05 (protocol: 0.1); "
        "train.milestones [5, 7] (protocol: [150, 225])"
    )


#: One row of the paper for each method and each data set.
ROWS = [("table2", f"ResNet-32, {name}") for name in ("Baseline", "KD from ResNet-56", "AT from ResNet-56", "DML")]
ROWS += [("table2", f"ResNet-32, {name}") for name in ("AFD", "AMLN", "ONE", "FFL", "KDCL", "OKDDip", "FFSD")]
ROWS += [("vgg16", "VGG-16, EnD²"), ("table5", "ResNet-32, ONE + leader"), ("table3", "ResNet-18, FFSD")]
ROWS += [("table3", "ResNet-18, ONE")]

#: Values to try for a setting, until one is valid and another than the protocol's.
OTHERS: list[Any] = [
    True,
    False,
    None,
    1,
    2,
    3,
    7,
    0.25,
    0.5,
    3.0,
    16,
    20.0,
    [10],
    [0.1, 0.2, 0.3],
    "resnet20",
    "torchvision:resnet18",
]
OTHERS += [400, {"max": 2}, ["resnet32", "resnet20"]]

#: What a setting needs beside it.
COMPANIONS: dict[str, dict[str, Any]] = {
    "train.warmup_from": {"warmup_epochs": 3},
    "train.optimiser": {"lr": 0.01},
    "train.schedule": {"milestones": None},
}


def row_named(name: str, label: str) -> tuple[PaperTable, PaperRow]:
    table = paper_tables()[name]
    return table, next(row for row in table.rows if row.label == label)


def as_the_paper(table: PaperTable, row: PaperRow) -> dict[str, Any]:
    """A trial of the row, plain; of what the paper leaves open the first reading."""
    plain: dict[str, Any] = {"data": {"root": "images"}, "backbone": {}, "method": {}, "train": {}, "scale": {}}
    settings = protocol_of(table, row) | {
        key: value[0] if isinstance(value, list) else value for key, value in row.match.items()
    }
    for dotted, value in settings.items():
        section, _, key = dotted.partition(".")
        plain[section][key] = value
    return plain | {"scale": plain["scale"] | {"gpus_per_worker": 1.0}}


@pytest.mark.parametrize(("name", "label"), ROWS)
def test_whatever_differs_from_the_protocol_is_found(name: str, label: str, tmp_path: Path) -> None:
    """Every key of every section that is part of a trial's identity, but for the row's own."""
    table, row = row_named(name, label)
    plain = as_the_paper(table, row)
    spec = TrialSpec.model_validate(plain)
    assert differences(spec, table, row) == {}
    assert TrialSpec.model_validate(plain | {"seed": 5}).identity() != spec.identity(), "the run's own"
    (weights := tmp_path / "teacher.safetensors").write_bytes(b"weights")
    begun = {"weights": str(weights)}
    companions = COMPANIONS | {"backbone.weights_for": begun, "backbone.lr_factor": begun}
    walked = 0
    for section in ("data", "backbone", "method", "train", "scale"):
        settings = getattr(spec, section)
        for key, field in type(settings).model_fields.items():
            dotted = f"{section}.{key}"
            if not identifies(field) or dotted in row.match or dotted == "data.name" or field.is_required():
                continue
            if dotted == "data.crop_padding" and table.data.name == "ImageNet":
                continue  # a stream takes no other
            if dotted == "method.deploy":
                continue  # the best is chosen on held-out images, which the protocol has not
            if dotted == "data.image_size" and row.match.get("backbone.name", "vgg-16") == "vgg-16":
                continue  # it takes no smaller images
            literals = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
            for other in [*literals, *OTHERS, str(weights)]:
                if other == getattr(settings, key):
                    continue
                changes = companions.get(dotted, {}) | {key: other}
                try:
                    changed = TrialSpec.model_validate(plain | {section: plain[section] | changes})
                except ValueError:
                    continue
                if changed.identity() != spec.identity():
                    break
            else:
                pytest.fail(f"{dotted}: no other value found")
            found = differences(changed, table, row)
            assert dotted in found
            assert found.keys() <= {f"{section}.{name}" for name in changes}
            walked += 1
    assert walked >= 20


@pytest.mark.parametrize("data", [{"name": "digits"}, {"name": "cifar10", "crop_padding": 3}, {"name": "parquet"}])
def test_other_data_differ_in_all_that_they_have(data: dict[str, Any]) -> None:
    table, row = row_named("table1", "ResNet-32, FFSD")
    paths = {"train": "a.parquet", "test": "b.parquet", "image_size": 32} if data["name"] == "parquet" else {}
    spec = TrialSpec.model_validate(as_the_paper(table, row) | {"data": data | paths})
    found, wanted = differences(spec, table, row), protocol_of(table, row)
    for key, field in type(spec.data).model_fields.items():
        if identifies(field) and not field.is_required():
            alike = f"data.{key}" in wanted and wanted[f"data.{key}"] == getattr(spec.data, key)
            assert (f"data.{key}" in found) is not alike, key
    assert found["data.name"] == (f'"{data["name"]}"', '"cifar100"')
    assert "data.train" not in found


def test_only_the_rows_that_differ_are_named(record: Any) -> None:
    """KDCL's `general` needs held-out images, which the paper's protocol has not; min_logit does without."""
    general = "{method: {name: kdcl, target: general}, data.validation: 0.1}"
    job = CIFAR.replace("{name: ffsd}", "{name: kdcl}").replace("{method: {name: baseline}}", general)
    comparison = compare(record(job, lambda spec: result(spec, 70.0, 70.0)), "table2")
    said = {
        entry.row: [note for note in notes_on(comparison, entry, "ours") if note.startswith("not the paper's protocol")]
        for entry in comparison.entries
        if entry.measure == "Accuracy" and entry.seeds
    }
    assert said == {
        "ResNet-32, KDCL (kdcl general n=2, validation=0.1)": [
            "not the paper's protocol: data.validation 0.1 (protocol: 0.0)"
        ],
        "ResNet-32, KDCL (kdcl min_logit n=2, validation=0.0)": [],
    }
    assert render_markdown(comparison).count("not the paper's protocol") == 1


@pytest.mark.parametrize("name", paper_tables())
def test_the_job_files_are_as_the_protocol_says_or_name_what_is_not(name: str) -> None:
    table, allowed = paper_tables()[name], OPEN.get(name, set())
    for spec in load_job(JOBS / f"{'vgg16_end2' if name == 'vgg16' else name}.yaml").trials:
        for row in table.rows:
            if matches(spec, row.match):
                assert set(differences(spec, table, row)) <= allowed, row.label


def test_rows_that_the_run_lacks(record: Any) -> None:
    comparison = compare(record(CIFAR, spread), "table1")
    markdown = render_markdown(comparison)
    assert markdown.count("missing") == 6
    assert "| WRN-40-2, FFSD |  | missing | 0 |  |  |  |" in markdown
    rows = list(csv.DictReader(io.StringIO(render_csv(comparison))))
    (lacking,) = (row for row in rows if (row["row"], row["measure"]) == ("WRN-40-2, FFSD", "Leader"))
    assert (lacking["ours"], lacking["paper"], lacking["within"]) == ("", "79.14", "")
    assert lacking["paper std"] == "0.0367423"
    (ours,) = (row for row in rows if (row["row"], row["measure"]) == ("ResNet-32, FFSD", "Leader"))
    assert (ours["ours"], ours["ours std"], ours["difference"], ours["within"], ours["seeds"]) == (
        *("74.85", "0.1", "0"),
        *("yes", "0; 1; 2"),
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
    assert ours["Student FLOPs (M)"] == approx_cell(129.4, None, abs=0.05)
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
    assert capsys.readouterr().out.startswith(
        "row,measure,epoch,n,seeds,ours,ours std,paper,paper std,printed std,difference"
    )
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
