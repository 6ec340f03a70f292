"""The summary of a run: one accuracy a configuration, its gain, its cost, and what is not noise."""

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from ffsd_ray.report import best_model
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.collect import collect
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import result_table, table_of
from ffsd_ray.report.tables.terminal import render_terminal

from helpers.synthetic_records import result

JOB = """\
name: j
data: {name: digits, validation: 0.1}
backbone: resnet20
train: {epochs: 10}
seed: [0, 1, 2]
search:
  grid: {method: [baseline, dml, ffsd, kd]}
"""
#: After the last epoch, by seed: ffsd is better, kd worse, dml neither.
LAST = {
    "baseline": [90.0, 91.0, 90.5],
    "dml": [90.2, 90.9, 90.6],
    "ffsd": [95.0, 96.1, 95.4],
    "kd": [80.0, 80.9, 80.6],
}


def outcome(spec: Any) -> Any:
    return result(spec, LAST[spec.method.name][spec.seed % 3] + 1, LAST[spec.method.name][spec.seed % 3])


def printed(summary: Summary, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(render_terminal(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_a_configuration(record: Any) -> None:
    summary = Summary(result_table(record(JOB, outcome)))
    text = summary.text()
    assert text.head == ("Configuration", "n", "Last", "Gain", "Best", "× work", "Deployed")
    [section] = text.sections
    lines = {line[0]: line for line in section.rows}
    assert lines["baseline"] == ("baseline", "3", "90.50 ± 0.50", "", "91.50", "1.00", "1")
    assert lines["ffsd n=2"][2:5] == ("95.52 ± 0.56", "+5.02 ± 0.10  ", "96.52"), "the leader is the third member"
    assert float(lines["ffsd n=2"][5]) > 3
    assert lines["dml n=2"][3].endswith(" ~")
    assert not lines["kd"][3].endswith("~")


def test_what_is_not_noise_is_named_with_its_interval(record: Any) -> None:
    summary = Summary(result_table(record(JOB, outcome)))
    gains = {gain.row.spec.method.name: gain for gain in summary.gains()}
    test = ttest_rel([value + 0.02 for value in LAST["ffsd"]], LAST["baseline"])
    assert gains["ffsd"].p == pytest.approx(test.pvalue)
    assert gains["ffsd"].interval == pytest.approx(test.confidence_interval(0.95))
    assert gains["ffsd"].p_corrected == pytest.approx(2 * test.pvalue), "the second smallest of three"
    low, high = test.confidence_interval(0.95)
    assert f"Better than the baseline beyond noise: ffsd n=2 +5.02 (95% interval {low:+.2f} to {high:+.2f})" in (
        summary.verdict()
    )
    assert "Worse: kd -10.00" in summary.verdict()
    assert "dml" not in summary.verdict()


def test_no_gain_stands_out(record: Any) -> None:
    job = JOB.replace("dml, ffsd, kd", "dml")
    assert Summary(result_table(record(job, outcome))).verdict().startswith("No gain stands out from noise")


def test_one_seed_tells_nothing(record: Any) -> None:
    summary = Summary(result_table(record(JOB.replace("[0, 1, 2]", "0"), outcome)))
    assert summary.verdict().startswith("One seed")
    assert all(gain.is_noise for gain in summary.gains())


def test_without_a_baseline_there_is_no_gain(record: Any) -> None:
    summary = Summary(result_table(record(JOB.replace("baseline, ", ""), outcome)))
    assert summary.verdict() == ""
    assert "[1] no gain: no completed baseline trial" in printed(summary)


def test_trials_that_do_not_count_as_seeds_are_not_tested(record: Any) -> None:
    """A row of several configurations: its trials are not drawn alike."""
    run = record(JOB.replace("[baseline, dml", "[{name: dml, students: 3}, baseline, dml"), outcome)
    table = table_of(run.job(), collect(run), by=["method.name"])
    assert all(gain.p is None for gain in Summary(table).gains())


def test_seventeen_methods_fit_on_a_screen(record: Any) -> None:
    rates = ", ".join(f"{rate / 100}" for rate in range(1, 17))
    job = JOB.replace("{method: [baseline, dml, ffsd, kd]}", f"{{method: [ffsd], method.lambda_fea: [{rates}]}}")
    run = record(job + "  also: [{method: baseline}]\n", outcome)
    lines = printed(Summary(result_table(run))).splitlines()
    assert len(lines) <= 17 + 16, "a line each"
    assert max(map(len, lines)) <= 80
    [last] = [line for line in lines if line.startswith("baseline")]
    assert last.split() == ["baseline", "3", "90.50", "±0.50", "91.50", "1.00", "1"]


def test_notes_on_methods_are_left_to_the_detail(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(JOB, lambda spec: "no room" if spec.method.name == "kd" and spec.seed == 1 else outcome(spec))
    assert report([run.store.location]) == 0
    short = " ".join(capsys.readouterr().out.split())
    assert "UNCONFIRMED" not in short
    assert "1 note on methods, every member and ensemble." in short
    assert "seed 1: TrialError: no room" in short
    assert "Common 1" not in short
    assert report([run.store.location, "--detail"]) == 0
    detailed = capsys.readouterr().out
    assert "UNCONFIRMED" in detailed
    assert "Common" in detailed
    with pytest.raises(SystemExit):
        report([run.store.location, "--detail", "--plot", "method"])


def test_of_one_epoch(record: Any) -> None:
    run = record(JOB, outcome)
    text = Summary(result_table(run, ["best"])).text()
    assert text.head == ("Configuration", "n", "Best", "Gain", "× work", "Deployed")
    assert text.sections[0].rows[0][2] == "91.50 ± 0.50"


def test_the_next_command_works_or_says_what_it_needs(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(JOB, outcome)
    [_, line] = best_model.outcome(run, None)
    monkeypatch.chdir(tmp_path)
    assert report(shlex.split(line.removeprefix("Next: ffsd report "))) == 0
    assert (tmp_path / f"{run.store.name}.html").exists()
    monkeypatch.setattr("ffsd_ray.report.plots.style.find_spec", lambda package: None)
    [_, again] = best_model.outcome(run, None)
    assert again == f'{line}  (after pip install "ffsd-ray[plot]")'
