"""Tables of a run by what one asks for: rows, order, comparison, the best, and the forms they are printed in."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from scipy.stats import ttest_1samp, ttest_rel

from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.best import best_job
from ffsd_ray.report.collect import collect
from ffsd_ray.report.ranking import in_order
from ffsd_ray.report.significance import holm, seeds_needed
from ffsd_ray.report.tables.export import escaped, render_csv, render_latex, render_markdown
from ffsd_ray.report.tables.rows import Cell, Difference
from ffsd_ray.report.tables.table import Table, table_of
from ffsd_ray.report.tables.terminal import render_terminal

from helpers.synthetic_records import Outcome, result

#: ffsd and dml with 2 and 3 students at two learning rates, and a baseline at one: 2 seeds each.
JOB = """
name: small
data: {name: digits, validation: 0.2}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 10, batch_size: 64}
seed: [0, 1]
search:
  grid: {method.name: [ffsd, dml], method.students: [2, 3], train.lr: [0.1, 0.05]}
  also: [{method: {name: baseline}}]
"""
ONE = """
name: one
data: {name: digits, validation: 0.2}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 10, batch_size: 64}
seed: [0, 1, 2]
search: {grid: {method.students: [2, 3, 4]}, also: [{method: {name: dml}}, {method: {name: baseline}}]}
"""


def accuracy(spec: TrialSpec) -> float:
    """Of the first member: a digit for each thing that may differ."""
    students = getattr(spec.method, "students", 0)
    method = {"baseline": 80.0, "dml": 84.0, "ffsd": 88.0}[spec.method.name]
    return method + students + (0.5 if spec.train.lr == 0.05 else 0.0) + spec.seed / 10


def outcome(spec: TrialSpec) -> Outcome:
    return result(spec, accuracy(spec), accuracy(spec) - 1, selection="val")


def table(run: RunRecords, **asked: Any) -> Table:
    return table_of(run.job(), collect(run), ["best"], **asked)


def names(shown: Table) -> list[str]:
    return [row.configuration for row in shown.rows]


def row_of(shown: Table, name: str) -> Any:
    (row,) = (row for row in shown.rows if row.configuration == name)
    return row


# --by


def test_rows_by_a_key_are_means_over_all_else(record: Any) -> None:
    shown = table(record(JOB, outcome), by=["method.students"])
    assert names(shown) == ["students=2", "students=3", "baseline"]
    row = row_of(shown, "students=2")
    assert len(row.seeds) == 8
    # ffsd 90.0 90.1 90.5 90.6, dml 86.0 86.1 86.5 86.6
    assert row.cells["Common 1"].mean == pytest.approx(88.3)
    assert row.cells["Common 1"].std == pytest.approx(2.1554, abs=1e-4)
    said = "over the n trials of a row, which differ in method.name, train.lr, seed; seed 0, 1"
    assert any(said in caption for caption in shown.captions)


def test_a_column_that_some_trials_lack_says_so(record: Any) -> None:
    shown = table(record(JOB, outcome), by=["method.students"])
    assert row_of(shown, "students=2").cells["Leader"].mean == pytest.approx(90.3 + 0.02)
    assert "Leader: 4 of these 8 trials have it" in shown.notes
    line = next(line for line in render_markdown(shown).splitlines() if line.startswith("| students=2 |"))
    number = shown.notes.index("Leader: 4 of these 8 trials have it") + 1
    assert re.search(rf"\| 90\.32 ± 0\.29 \[{number}\] \|", line)


def test_several_keys_and_short_names(record: Any) -> None:
    shown = table(record(JOB, outcome), by=["method", "method.students"])
    assert names(shown) == ["ffsd, students=2", "ffsd, students=3", "dml, students=2", "dml, students=3", "baseline"]
    assert {len(row.seeds) for row in shown.rows} == {4, 2}


def test_gains_by_a_key_count_each_baseline_once(record: Any) -> None:
    job = JOB.replace(
        "{method: {name: baseline}}", "{method: {name: baseline}}, {method: {name: baseline}, train.lr: 0.05}"
    )
    row = row_of(table(record(job, outcome), by=["method.students"]), "students=3")
    # 80.0 80.1 80.5 80.6, though each is the baseline of two trials
    assert row.cells["Baseline"] == (pytest.approx(80.3), pytest.approx(0.29439, abs=1e-5))
    # leader of ffsd, mean of dml: each trial's own primary series
    assert row.cells["Gain"].mean == pytest.approx((11.03 + 7.03) / 2)


def test_rows_by_seed(record: Any) -> None:
    shown = in_order(table(record(JOB, outcome), by=["seed"]), "seed", reverse=True)
    assert names(shown) == ["seed=1", "seed=0"]


def test_by_a_key_failures_are_counted(record: Any) -> None:
    def end(spec: TrialSpec) -> Outcome:
        return "out of memory" if spec.train.lr == 0.05 and spec.method.name == "ffsd" else outcome(spec)

    run = record(JOB, end)
    shown = table(run, by=["method.students"])
    assert len(row_of(shown, "students=2").seeds) == 6
    assert "students=2, seed 1: TrialError: out of memory" in shown.notes
    assert "ffsd, 4 trials: TrialError: out of memory" in table(run, by=["method"]).notes


# trials that others only learn from

TAUGHT = """
name: taught
data: {name: digits, validation: 0.2}
backbone: {name: resnet20}
train: {epochs: 10, batch_size: 64}
seed: [0, 1, 2]
search: {grid: {method: [{name: baseline}, {name: kd, teacher: resnet32}, {name: end2, ensemble: 2}]}}
"""


def taught(spec: TrialSpec) -> Outcome:
    """Teachers are better than anything else."""
    reached = {"baseline": 80.0, "kd": 82.0, "end2": 84.0}[spec.method.name] + (10 if spec.is_teacher else spec.seed)
    return result(spec, reached, reached, selection="val")


@pytest.mark.parametrize("by", [[], ["method"], ["method", "train.lr"], ["backbone"]], ids=str)
def test_teachers_are_in_no_row(record: Any, by: list[str]) -> None:
    """Whatever makes rows: each is of the job's own seeds, and a caption says what the others reach."""
    shown = table(record(TAUGHT, taught), by=by, against="method=baseline" if by != ["backbone"] else None)
    assert all(set(row.seeds) == {0, 1, 2} for row in shown.rows)
    assert len(shown.rows) == (1 if by == ["backbone"] else 3)
    baselines = [row for row in shown.rows if row.spec.method.name == "baseline" and by != ["backbone"]]
    assert all(row.cells["Baseline"].mean == 81.0 for row in baselines)
    assert all(row.difference == Difference(None, 3, None) for row in baselines)
    reached = Cell(90.0, 0.0).text()
    said = f"last epoch: resnet32 {reached} (n = 3), resnet20 {reached} (n = 6)"
    assert sum(said in caption for caption in shown.captions) == 1
    assert not any(str(2**31)[:6] in caption for caption in shown.captions)


def test_the_best_is_none_of_the_teachers(record: Any) -> None:
    """Its seeds are the job's: those of an ensemble are none of the baseline's."""
    run = record(TAUGHT, lambda spec: taught(spec) if spec.method.name == "baseline" else ...)
    text = best_job(run.job(), table(run), collect(run), by_test=False)
    assert yaml.safe_load(text)["seed"] == [0, 1, 2]
    assert yaml.safe_load(text)["backbone"]["name"] == "resnet20"
    teachers = table(run, conditions=["backbone=resnet32"])
    assert [len(row.seeds) for row in teachers.rows] == [3], "asked for by themselves they are shown"
    with pytest.raises(RecordsError, match="are teachers, which other trials learn from"):
        best_job(run.job(), teachers, collect(run), by_test=False)


# --where


def test_conditions_keep_rows_and_their_gains(record: Any) -> None:
    shown = table(record(JOB, outcome), conditions=["method=ffsd", "train.lr=0.1"])
    assert names(shown) == ["ffsd n=2", "ffsd n=3"]
    # the baseline itself is not shown
    assert row_of(shown, "ffsd n=3").cells["Gain"].mean == pytest.approx(11.03)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"conditions": ["method.student=2"]}, "Did you mean `method.students`?"),
        ({"conditions": ["train=2"]}, "train is a section; give a key in it: train.epochs"),
        ({"conditions": ["method.students"]}, "should be KEY=VALUE"),
        ({"conditions": ["method.students=7"]}, "no such trial; method.students is 2, 3"),
        ({"conditions": ["method=ffsd", "method.students=[2"]}, "Not valid YAML"),
        ({"by": ["lr"]}, "--by lr: not a key of trials. Did you mean `train.lr`?"),
        ({"against": "method=kd"}, '--against method=kd: no such trial; method.name is "ffsd", "dml", "baseline"'),
        ({"against": "method=dml,method.students=3"}, "2 rows meet this; say what tells them apart: dml n=3, lr=0.1; "),
        ({"against": "methd=dml"}, "--against methd=dml: not a key of trials. Did you mean `method`?"),
    ],
)
def test_what_is_wrong_is_named(record: Any, asked: dict[str, Any], said: str) -> None:
    with pytest.raises((JobError, RecordsError)) as error:
        table(record(JOB, outcome), **asked)
    assert said in str(error.value)


# --sort


def val_and_test(val: dict[int, float], test: dict[int, float]) -> Callable[[TrialSpec], Outcome]:
    """By number of students."""

    def end(spec: TrialSpec) -> Outcome:
        n = getattr(spec.method, "students", 0) if spec.method.name == "ffsd" else 0
        found = result(spec, test.get(n, 50.0), test.get(n, 50.0), selection="val")
        for best in found["best"].values():
            best["selected_by"] = val.get(n, 50.0)
        for key in [key for key in found["last"] if key.startswith("val/")]:
            found["last"][key] = val.get(n, 50.0)
        return found

    return end


ORDERS = val_and_test({2: 70.0, 3: 90.0, 4: 80.0}, {2: 95.0, 3: 85.0, 4: 75.0})


@pytest.mark.parametrize("epoch", ["best", "last"])
def test_accuracies_are_ranked_on_validation_images(record: Any, epoch: Any) -> None:
    run = record(ONE, ORDERS)
    found = table_of(run.job(), collect(run), [epoch])
    shown = in_order(found, "leader")
    assert names(shown)[:3] == ["ffsd n=3", "ffsd n=4", "ffsd n=2"]
    assert names(shown)[3:] == ["dml n=2", "baseline"]  # neither has a leader
    assert shown.title == "one"
    assert shown.captions[-1] == "rows by Leader on the held-out validation images, highest first"
    gained = in_order(found, "gain", reverse=True)
    assert names(gained) == ["dml n=2", "ffsd n=2", "ffsd n=4", "ffsd n=3", "baseline"]


def test_ranked_by_the_test_images_the_title_says_so(record: Any) -> None:
    shown = in_order(table(record(ONE, ORDERS)), "leader", by_test=True)
    assert names(shown)[:3] == ["ffsd n=2", "ffsd n=3", "ffsd n=4"]
    assert shown.title == "one, ranked by test accuracy"


def test_without_validation_images_the_title_says_so(record: Any) -> None:
    run = record(ONE.replace(", validation: 0.2", ""), lambda spec: result(spec, accuracy(spec), 1.0))
    shown = in_order(table(run), "accuracy")
    assert names(shown) == ["ffsd n=4", "ffsd n=3", "ffsd n=2", "dml n=2", "baseline"]
    assert shown.title == "one, ranked by test accuracy"


def test_keys_ascend_and_what_lacks_them_comes_last(record: Any) -> None:
    run = record(JOB.replace("[2, 3]", "[10, 2]"), outcome)
    shown = in_order(table(run, conditions=["train.lr=0.1"]), "method.students")
    assert names(shown) == ["ffsd n=2", "dml n=2", "ffsd n=10", "dml n=10", "baseline"]
    assert names(in_order(shown, "method.students", reverse=True))[0] == "ffsd n=10"
    assert names(in_order(shown, "method"))[0] == "baseline"
    assert names(in_order(shown, "method.students", reverse=True))[-1] == "baseline"


@pytest.mark.parametrize("name", ["Ens (any)", "ens-any", "ENS ANY"])
def test_columns_are_found_however_they_are_written(record: Any, name: str) -> None:
    assert "rows by Ens (any) on" in in_order(table(record(ONE, outcome)), name).captions[-1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leadr", "Did you mean `leader`?"),
        ("method.student", "Did you mean `method.students`?"),
        ("seed", "trials of the same row differ in it; rows of their own: --by seed"),
        ("student", "Columns: accuracy, baseline, common 1"),
    ],
)
def test_what_cannot_be_sorted_by(record: Any, name: str, said: str) -> None:
    with pytest.raises(JobError, match=re.escape(said)):
        in_order(table(record(ONE, outcome)), name)


def test_rows_chosen_on_different_splits_are_not_ranked(record: Any) -> None:
    job = ONE.replace("{method: {name: dml}}", "{method: {name: dml}, data.validation: 0.0}")
    run = record(job, lambda spec: result(spec, 90.0, 90.0, "val" if spec.data.validation else "test"))
    with pytest.raises(RecordsError, match="some epochs were chosen on held-out validation images and some on"):
        in_order(table(run), "accuracy")
    assert in_order(table(run), "accuracy", by_test=True).title == "one, ranked by test accuracy"
    with pytest.raises(RecordsError, match="--best: some epochs were chosen"):
        best_job(run.job(), table(run), collect(run), by_test=False)


def test_how_trials_were_trained_is_said(record: Any) -> None:
    """What the paper does not have, where it is set."""
    shown = table(record(ONE, outcome))
    assert not any("optimiser" in caption or "mixup" in caption for caption in shown.captions)
    extra = "optimiser: adamw, lr: 0.01, mixup: 0.2, ema: 0.99"
    job = ONE.replace("train: {", f"train: {{{extra}, ").replace("lr: 0.1", "")
    captions = table(record(job, outcome)).captions
    assert captions[0].endswith("lr 0.01, fp32, optimiser adamw, mixup 0.2, ema 0.99")


# --against


def seeded(values: dict[tuple[str, int], list[float | None]]) -> Callable[[TrialSpec], Outcome]:
    """Primary accuracies by method and students, a seed each."""

    def end(spec: TrialSpec) -> Outcome:
        value = values[spec.method.name, getattr(spec.method, "students", 0)][spec.seed]
        if value is None:
            return "boom"
        found = result(spec, 50.0, 50.0, selection="val")
        found["best"][found["primary_series"]]["top1"] = value
        return found

    return end


def test_differences_are_paired_over_seeds(record: Any) -> None:
    values: dict[tuple[str, int], list[float | None]] = {
        ("dml", 2): [90.0, 93.0, 91.0],
        ("ffsd", 2): [91.0, 94.5, 92.2],
        ("ffsd", 3): [91.0, None, 90.0],
        ("ffsd", 4): [90.5, None, None],
        ("baseline", 0): [89.0, 92.0, 90.0],
    }
    shown = table(record(ONE, seeded(values)), against="method=dml,method.students=2")
    found = row_of(shown, "ffsd n=2").difference
    test = ttest_rel([91.0, 94.5, 92.2], [90.0, 93.0, 91.0])
    assert found.cell == (pytest.approx(3.7 / 3), pytest.approx(0.25166, abs=1e-5))
    assert found.pairs == 3
    assert found.p == pytest.approx(test.pvalue)
    assert found.p_corrected == pytest.approx(2 * test.pvalue), "of the two rows that have a p value"
    assert found.interval == pytest.approx(tuple(test.confidence_interval()))
    # the seed that failed is left out of the other row too
    found = row_of(shown, "ffsd n=3").difference
    assert (found.cell.mean, found.pairs) == (pytest.approx(0.0), 2)
    assert found.p == found.p_corrected == pytest.approx(1.0)
    found = row_of(shown, "ffsd n=4").difference
    assert (found.cell, found.pairs, found.p) == ((pytest.approx(0.5), None), 1, None)
    assert (found.p_corrected, found.interval, found.seeds_needed) == (None, None, None)
    assert "no p value: 1 seed in common with dml n=2, and it takes 2 or more" in shown.notes
    # always one less
    found = row_of(shown, "baseline").difference
    assert (found.cell, found.pairs, found.p) == ((pytest.approx(-1.0), pytest.approx(0.0)), 3, None)
    assert "no p value: the differences are the same for every seed" in shown.notes
    assert row_of(shown, "dml n=2").difference == Difference(None, 3)
    (said,) = (caption for caption in shown.captions if caption.startswith("Δ: "))
    assert "minus Mean of common of dml n=2, paired over seeds" in said
    assert "p (Holm): corrected for the number of comparisons" in said
    assert said.endswith("points would be found at p < 0.05 with a chance of 80%, its spread being this row's")
    lines = {line.split(" |")[0]: line for line in render_markdown(shown).splitlines() if line.startswith("| ")}
    assert lines["| ffsd n=2"].endswith("| +1.23 ± 0.25 | +0.61 to +1.86 | 0.014 | 0.027 | 3 | 5 |")
    assert lines["| dml n=2"].endswith("| reference |  |  |  |  |  |")
    assert re.search(r"\| -1\.00 ± 0\.00 \|  \| \[\d\] \|  \| 3 \|  \|$", lines["| baseline"])
    records = {line["configuration"]: line for line in csv.DictReader(io.StringIO(render_csv(shown)))}
    assert (records["ffsd n=2"]["difference"], records["ffsd n=2"]["pairs"]) == ("1.23333", "3")
    assert float(records["ffsd n=2"]["p"]) == pytest.approx(0.01365, abs=1e-4)
    assert float(records["ffsd n=2"]["p corrected"]) == pytest.approx(0.02719, abs=1e-4)
    assert float(records["ffsd n=2"]["difference low"]) == pytest.approx(0.6082, abs=1e-4)
    assert records["ffsd n=2"]["seeds needed"] == "5"
    assert (records["ffsd n=4"]["difference std"], records["ffsd n=4"]["p"]) == ("", "")


def test_what_seeds_and_comparisons_take() -> None:
    """Holm's correction by hand; a power that was simulated: 20,000 tests with as many seeds, and with one less."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    for std in (0.3, 0.6, 1.2):
        needed = seeds_needed(std)
        assert needed is not None
        generator = np.random.default_rng(0)
        enough, too_few = (
            (ttest_1samp(generator.normal(0.5, std, (20_000, seeds)), 0.0, axis=1).pvalue < 0.05).mean()
            for seeds in (needed, needed - 1)
        )
        assert too_few - 0.01 < 0.8 < enough + 0.01
        assert too_few < enough
    assert seeds_needed(50.0) is None


def test_no_seed_in_common(record: Any) -> None:
    values: dict[tuple[str, int], list[float | None]] = {
        ("dml", 2): [90.0, None, None],
        ("baseline", 0): [None, None, None],
        **{("ffsd", n): [None, 91.0, 92.0] for n in (2, 3, 4)},
    }
    shown = table(record(ONE, seeded(values)), against="method=dml")
    assert row_of(shown, "ffsd n=2").difference == Difference(None, 0)
    assert "no p value: no seed in common with dml n=2, and it takes 2 or more" in shown.notes
    assert "reference" not in next(
        line for line in render_markdown(shown).splitlines() if line.startswith("| ffsd n=2")
    )


def test_the_row_compared_with_need_not_be_shown(record: Any) -> None:
    shown = table(record(ONE, outcome), conditions=["method=ffsd"], against="method=baseline")
    assert names(shown) == ["ffsd n=2", "ffsd n=3", "ffsd n=4"]
    # accuracies in step: no variance
    found = row_of(shown, "ffsd n=2").difference
    assert found.cell == (pytest.approx(10.02), pytest.approx(0, abs=1e-9))
    assert found == Difference(found.cell, 3)


def test_of_rows_by_a_key_a_seed_is_the_mean_of_its_trials(record: Any) -> None:
    shown = table(record(JOB, outcome), by=["method"], against="method=baseline")
    assert row_of(shown, "ffsd").primary.by_seed == {0: pytest.approx(90.775), 1: pytest.approx(90.875)}
    assert row_of(shown, "ffsd").difference.pairs == 2


# --best


def identities(file: Path) -> set[str]:
    return {trial.configuration().identity() for trial in load_job(file).trials}


def test_the_best_is_a_job_file_that_trains_it(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ONE.replace("digits,", "digits, image_size: 12,")
    job += "context: local\nrecords: {keep_checkpoints: all}\nscale: {threads: 2}\n"
    run = record(job, ORDERS)
    out = tmp_path / "best.yaml"
    assert main([run.store.location, "--best", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    plan = load_job(out)
    wanted = [spec for spec in load_job(tmp_path / "job.yaml").trials if getattr(spec.method, "students", 0) == 3]
    assert {spec.identity() for spec in plan.trials} == {spec.identity() for spec in wanted}
    assert (plan.job.name, plan.job.context, plan.job.records.keep_checkpoints) == ("one-best", "local", "all")
    first, second, *_ = out.read_text().splitlines()
    assert first == "# The best of 5 configurations of one, ranked by validation accuracy: ffsd n=3"
    assert second.startswith(
        "# Leader 90.00 ± 0.00 % on the held-out validation images at the best epoch, over seeds 0"
    )
    # nobody's file is overwritten
    assert main([run.store.location, "--best", str(out)]) == 2
    assert "file exists" in capsys.readouterr().err
    assert main([run.store.location, "--best"]) == 0
    assert capsys.readouterr().out == out.read_text()


def test_the_best_of_those_asked_for_with_all_its_seeds(record: Any, tmp_path: Path) -> None:
    def end(spec: TrialSpec) -> Outcome:
        return "boom" if spec.seed == 1 and spec.method.name == "dml" else ORDERS(spec)

    run = record(ONE, end)
    text = best_job(run.job(), table(run, conditions=["method=dml", "seed=0"]), collect(run), by_test=False)
    file = tmp_path / "best.yaml"
    file.write_text(text)
    assert [trial.seed for trial in load_job(file).trials] == [0, 1, 2]
    assert "# Not completed: seed 1, 2." in text
    (trial,) = (
        trial.spec.identity() for trial in collect(run) if (trial.spec.method.name, trial.spec.seed) == ("dml", 0)
    )
    assert f"# Weights, seed 0: trials/{trial}/model_best.safetensors\n" in text


def test_by_test_accuracy_only_if_one_says_so(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ONE.replace(", validation: 0.2", "")
    run = record(job, lambda spec: result(spec, accuracy(spec), 1.0))
    assert main([run.store.location, "--best"]) == 2
    said = capsys.readouterr().err
    assert "held out no images for validation" in said
    assert "--by-test" in said
    assert main([run.store.location, "--best", "--by-test"]) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == "# The best of 5 configurations of one, ranked by test accuracy: ffsd n=4"
    assert "on the test images at the best epoch" in second
    assert third == "# The test images also chose the epoch, as the paper did."


def test_the_job_file_may_say_so(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = ONE.replace(", validation: 0.2", "") + "report: {rank_by: test}\n"
    run = record(job, lambda spec: result(spec, accuracy(spec), 1.0))
    assert main([run.store.location, "--best"]) == 0
    assert "ranked by test accuracy: ffsd n=4" in capsys.readouterr().out.splitlines()[0]


def test_by_test_goes_before_validation(record: Any) -> None:
    run = record(ONE, ORDERS)
    text = best_job(run.job(), table(run), collect(run), by_test=True)
    assert text.startswith("# The best of 5 configurations of one, ranked by test accuracy: ffsd n=2\n")
    assert "students: 2" in text


def test_different_images_are_not_ranked(record: Any) -> None:
    files = "{name: parquet, train: a.parquet, test: b.parquet, validation: 0.2, image_size: 32}"
    run = record(ONE.replace("{method: {name: dml}}", f"{{data: {files}}}"), outcome)
    with pytest.raises(RecordsError, match="accuracies on different images do not compare: digits, parquet"):
        best_job(run.job(), table(run), collect(run), by_test=False)


def test_other_sizes_of_the_same_images_are_ranked_other_test_images_not(record: Any) -> None:
    run = record(ONE.replace("{method: {name: dml}}", "{data.image_size: 8}"), outcome)
    assert "ranked by" in best_job(run.job(), table(run), collect(run), by_test=False)
    run = record(ONE.replace("{method: {name: dml}}", "{data.test_share: 0.5}"), outcome)
    with pytest.raises(RecordsError, match=r"on different images do not compare: digits, digits, test_share 0\.5;"):
        best_job(run.job(), table(run), collect(run), by_test=False)


def test_nothing_to_choose_from(record: Any) -> None:
    run = record(ONE, lambda spec: ...)
    with pytest.raises(RecordsError, match="no trial of one has completed"):
        best_job(run.job(), table(run), collect(run), by_test=False)


def test_words_that_look_like_numbers_stay_words(record: Any, tmp_path: Path) -> None:
    files = "{name: parquet, train: '1e5', test: 'on', validation: 0.2, image_size: 32}"
    run = record(
        ONE.replace("{name: digits, validation: 0.2}", files).replace("epochs: 10", "epochs: 10, lr: 1e-5"), ORDERS
    )
    file = tmp_path / "best.yaml"
    file.write_text(best_job(run.job(), table(run), collect(run), by_test=False))
    assert identities(file) < identities(tmp_path / "job.yaml")
    assert load_job(file).trials[0].train.lr == 1e-5


# how trials ended


def ends(spec: TrialSpec) -> Outcome:
    said = {
        ("dml", 0): "stopped at 4",
        ("dml", 1): "stopped at 2",
        ("baseline", 0): "exploited from 0123456789abcdef at 5; exploited from fedcba9876543210 at 8",
        ("baseline", 1): "exploited from 0123456789abcdef at 5; exploited from fedcba9876543210 at 8",
        ("baseline", 2): "exploited from 0123456789abcdef at 5; exploited from fedcba9876543210 at 8",
    }
    return dict(result(spec, 90.0, 90.0, selection="val")) | {
        "ended": said.get((spec.method.name, spec.seed), "completed")
    }


def test_how_trials_ended_is_a_column_where_it_differs(record: Any) -> None:
    shown = table(record(ONE, ends))
    assert shown.text().head[-1] == "Ended"
    last = {line[0]: line[-1] for line in shown.text().sections[0].rows}
    assert last["ffsd n=2"] == "completed"
    assert last["dml n=2"] == "2 stopped, 1 completed"
    assert last["baseline"] == "exploited 2 times, last at 8"
    (found,) = (line for line in csv.DictReader(io.StringIO(render_csv(shown))) if line["configuration"] == "dml n=2")
    assert found["ended"] == "stopped at 4; stopped at 2; completed"
    assert any(caption.startswith("Ended: ") for caption in shown.captions)
    assert "Ended" not in table(record(ONE, outcome)).text().head


@pytest.mark.parametrize("width", [60, 100])
def test_every_column_fits_a_terminal(record: Any, width: int) -> None:
    shown = table(record(ONE, ends), against="method=dml")
    console = Console(width=width, file=io.StringIO())
    console.print(render_terminal(shown))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "exploited 2 times, last at 8" in text
    assert "reference" in text


def test_a_search_that_looked_at_the_test_images_says_so(record: Any) -> None:
    job = ONE.replace("search: {", "search: {scheduler: {name: asha, by_test: true}, ")
    assert "ranked by test accuracy" in table(record(job, outcome)).title
    assert table(record(job.replace(", by_test: true", ""), outcome)).title == "one"


# LaTeX


def unescaped_specials(line: str) -> list[str]:
    return re.findall(r"(?<!\\)[#%_]", re.sub(r"\$[^$]*\$", "", line))


def test_latex_is_a_booktabs_table(record: Any) -> None:
    run = record(ONE.replace("name: one", "name: my_run"), outcome)
    text = render_latex(table(run, against="method=dml"))
    lines = text.splitlines()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}", r"\end{tabular}"):
        assert text.count(rule) == 1
    assert r"my\_run" in text
    assert r"in \%, mean $\pm$ sample" in text
    assert not [line for line in lines[1:] if unescaped_specials(line)]
    assert text.isascii()
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    spec = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert spec is not None
    cells = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(cells) == 6
    assert {len(re.findall(r"(?<!\\)&", line)) for line in cells} == {len(spec[1]) - 1}
    row = next(line for line in cells if line.startswith("ffsd n=4"))
    assert r" & 92.10 $\pm$ 0.10 & " in row
    (baseline,) = (line for line in cells if line.startswith("baseline"))
    assert r"$-$6.02 $\pm$ 0.00" in baseline
    assert r"\par{\footnotesize {[}1{]} " in text


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("50 % & #1_a", r"50 \% \& \#1\_a"),
        (r"a\b{c}~^", r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}"),
        ("1.0 ± 0.5", r"1.0 $\pm$ 0.5"),
        ("[1][2]", "{[}1{]}{[}2{]}"),
        ("<0.001", r"\textless{}0.001"),
    ],
)
def test_latex_escapes(plain: str, latex: str) -> None:
    assert escaped(plain) == latex


# Parquet


def test_parquet_has_types_and_settings(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = record(JOB, outcome), tmp_path / "table.parquet"
    asked = [run.store.location, "--format", "parquet", "--out", str(out), "--against", "method=baseline"]
    assert main(asked) == 0
    assert capsys.readouterr().out == f"{out}\n"
    found = pq.read_table(out)
    kinds = {field.name: str(field.type) for field in found.schema}
    assert kinds["n"] == kinds["pairs"] == kinds["method.students"] == "int64"
    assert kinds["seeds"] == "list<element: int64>"
    assert kinds["train.lr"] == kinds["Leader"] == kinds["Leader std"] == kinds["p"] == "double"
    assert kinds["method.name"] == "string"
    assert found.schema.metadata[b"title"] == b"small"
    rows = {(row["configuration"], row["epoch"]): row for row in found.to_pylist()}
    assert len(rows) == 18
    row = rows["ffsd n=3, lr=0.05", "last"]
    # unrounded: 91.5 and 91.6, less one, and the leader's 0.03
    assert row["Leader"] == pytest.approx(90.58, abs=1e-9)
    assert (row["method.students"], row["train.lr"], row["seeds"]) == (3, 0.05, [0, 1])
    assert rows["baseline, lr=0.1", "best"]["method.students"] is None
    assert rows["baseline, lr=0.1", "best"]["Leader"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format", "parquet"], "--format parquet needs --out"),
        (["--out", "x.csv"], "--out is for --format parquet; other tables go to the standard output"),
        (["--by", "method", "--plot", "method.students"], "--by does not go with --plot"),
        (["--where", "method=ffsd", "--paper", "table1"], "--where does not go with --paper"),
        (["--by", "method", "--best"], "--by does not go with --best"),
        (["--reverse"], "--reverse turns the order of --sort round"),
        (["--epoch", "both", "--best"], "one epoch: best or last"),
    ],
)
def test_flags_that_do_not_go_together(
    record: Any, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([record(ONE, outcome).store.location, *flags])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_all_of_it_as_a_command(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = JOB.replace("grid: {", "grid: {backbone.name: [resnet20, resnet32], ")
    run = record(job, outcome)
    asked = ["--by", "method.students", "--where", "backbone=resnet32", "--sort", "leader"]
    assert main([run.store.location, *asked, "--format", "csv", "--epoch", "best"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["configuration"], row["n"]) for row in rows] == [("students=3", "8"), ("students=2", "8")]
    assert main([run.store.location, *asked, "--format", "csv", "--epoch", "best", "--reverse"]) == 0
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["configuration"] == "students=2"


def test_many_values_do_not_fill_the_captions(record: Any) -> None:
    values = [round(0.01 * i, 2) for i in range(1, 31)]
    run = record(ONE.replace("method.students: [2, 3, 4]", f"train.lr: {values}").replace("[0, 1, 2]", "0"), outcome)
    assert "lr 0.01 / 0.02 / 0.03 / 0.04 / 0.05 / 0.06 / 0.07 / 23 more, fp32" in table(run).captions[0]


def test_each_result_is_read_once(record: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, read = record(JOB, outcome), Counter[str]()
    plain = Store.read

    def counted(store: Store, name: str) -> bytes:
        read[f"{store.name}/{name}"] += 1
        return plain(store, name)

    monkeypatch.setattr(Store, "read", counted)
    asked = ["--sort", "accuracy", "--against", "method=baseline", "--by", "method.students", "--where", "train.lr=0.1"]
    assert main([run.store.location, *asked, "--format", "csv"]) == 0
    assert main([run.store.location, "--best", str(tmp_path / "best.yaml")]) == 0
    results = {name: count for name, count in read.items() if name.endswith("/result.json")}
    assert len(results) == 18
    assert set(results.values()) == {2}  # once a command
