"""Reports on runs with little in them: no trials, none completed, equal accuracies, missing files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.collect import collect
from ffsd_ray.report.cost import main as cost
from ffsd_ray.report.maps import main as maps
from ffsd_ray.report.methods import main as methods
from ffsd_ray.report.plots.heatmap import heat_map
from ffsd_ray.report.plots.parallel_coordinates import parallel
from ffsd_ray.report.ranking import best
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.table import table_of

from helpers.synthetic_records import Outcome, result, write_run
from helpers.tiers import often

GRID = """\
name: small
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
train: {epochs: 2, batch_size: 64}
method: {name: ffsd}
seed: [0, 1]
search:
  grid: {train.lr: [0.1, 0.2], train.weight_decay: [1.0e-4, 1.0e-3], method.students: [2, 3]}
  also: [{method: {name: baseline}}]
"""
CHOSEN = """\
name: small
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: ffsd}
search:
  random: {train.lr: {uniform: [0.1, 0.2]}}
  samples: 3
  searcher: {name: optuna, by_test: true}
"""
KEYS = ["train.lr", "train.weight_decay", "method.students"]


def equal_means(spec: TrialSpec) -> Outcome:
    """With the larger spread, and only one seed, further on in the job."""
    if spec.train.lr == 0.2 and spec.seed == 1 and spec.train.weight_decay == 1e-3:
        return "a term is not finite"
    apart = 0 if spec.train.lr == 0.2 and spec.train.weight_decay == 1e-3 else spec.train.lr * (-1) ** spec.seed
    return result(spec, 90 + apart, 88 + apart)


def completed_first() -> Callable[[TrialSpec], Outcome]:
    seen: list[TrialSpec] = []

    def outcome(spec: TrialSpec) -> Outcome:
        seen.append(spec)
        return result(spec, 90, 88) if len(seen) == 1 else None

    return outcome


RUNS: dict[str, tuple[str, Callable[[], Callable[[TrialSpec], Outcome]]]] = {
    "no trials": (CHOSEN, lambda: lambda spec: ...),
    "not begun": (GRID, lambda: lambda spec: ...),
    "unfinished": (GRID, lambda: lambda spec: None),
    "all failed": (GRID, lambda: lambda spec: "ce is not finite\nin epoch 1"),
    "one completed": (GRID, completed_first),
    "equal means": (GRID, lambda: equal_means),
}
REPORTS = {
    "table": (report, []),
    "csv": (report, ["--format", "csv"]),
    "markdown": (report, ["--format", "markdown"]),
    "latex": (report, ["--format", "latex"]),
    "parquet": (report, ["--format", "parquet", "--out", "table.parquet"]),
    "best": (report, ["--best", "--by-test"]),
    "page": (report, ["--html", "page.html"]),
    "paper": (report, ["--paper", "table1"]),
    "where": (report, ["--where", "method=ffsd"]),
    "by": (report, ["--by", "train.lr"]),
    "sort by a column": (report, ["--sort", "accuracy"]),
    "sort by a key": (report, ["--sort", "train.lr"]),
    "against": (report, ["--against", "method=baseline,train.lr=0.1"]),
    "training curves": (report, ["--plot", "epochs", "--out", "plot.svg"]),
    "lines": (report, ["--plot", KEYS[0], "--out", "plot.svg"]),
    "heat map": (report, ["--plot", *KEYS[:2], "--out", "plot.svg"]),
    "parallel": (report, ["--plot", *KEYS, "--out", "plot.svg"]),
    "maps": (maps, ["--out", "maps.png"]),
    "cost": (cost, ["--format", "csv"]),
    "methods": (methods, []),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", often(["unfinished", "equal means"], RUNS, others="slow"))
def test_every_report_answers_or_says_why_not(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job, outcome = RUNS[name]
    run = write_run(tmp_path, job, outcome())
    for kind, (command, arguments) in REPORTS.items():
        status = command([run.store.location, *arguments])
        output = capsys.readouterr()
        if status:
            assert (status, output.out) == (2, ""), kind
            assert len(output.err.splitlines()) == 1, (kind, output.err)
        else:
            assert output.out, kind


def rows(run: RunRecords) -> list[Row]:
    return table_of(run.job(), collect(run), ["best"]).at("best")


def test_of_equal_means_the_first_is_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the one that spreads more."""
    run = write_run(tmp_path, GRID, equal_means)
    table = table_of(run.job(), collect(run), ["best"], conditions=["method=ffsd", "method.students=2"])
    first = table.rows[0]
    assert {row.primary.ranking.mean for row in table.rows if row.primary} == {
        first.primary.ranking.mean if first.primary else None
    }
    assert len({row.primary.ranking.std for row in table.rows if row.primary}) == 3, "wide, narrow and of one seed"
    for by_test in (False, True):
        assert best(table.rows, by_test=by_test) is first
        assert best(table.rows[::-1], by_test=by_test) is table.rows[-1]
    [panel] = heat_map(table, KEYS[:2]).panels
    assert panel.best == (0.1, 1e-4)
    everything = table_of(run.job(), collect(run), ["best"], conditions=["method=ffsd"])
    shown = parallel(everything, KEYS)
    assert shown.best is not None
    assert shown.best.values[-1] == 3, "each further student adds to this mean"
    assert report([run.store.location, "--best", "--by-test", "--where", "method.students=2"]) == 0
    assert "lr: 0.1\n" in capsys.readouterr().out


CURVES = ["--plot", "epochs", "--out", "plot.svg"]


@pytest.mark.parametrize("arguments", often([CURVES], [CURVES, ["--html", "page.html"]]))
def test_trials_without_a_history_are_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path, GRID, lambda spec: result(spec, 90, 88))
    [first, *others] = run.trials()
    run.trial(first).store.delete("history.parquet")
    assert report([run.store.location, *arguments]) == 1
    err = capsys.readouterr().err
    [left_out] = err.splitlines()
    assert left_out.startswith(f"Left out: {run.trial(first).store.location}/history.parquet: ")
    assert Path(arguments[-1]).stat().st_size > 1000
    for other in others:
        run.trial(other).store.delete("history.parquet")
    assert report([run.store.location, "--plot", "epochs"]) in (1, 2)
    assert capsys.readouterr().err.count("Left out: ") == len(run.trials())


@pytest.mark.parametrize("arguments", [["--best"], ["--by-test", "--best"], ["--plot", "epochs"], ["--plot", KEYS[0]]])
def test_the_run_may_come_last(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """argparse would leave it to an option that takes any number of words."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path, GRID, lambda spec: ...)
    assert report([*arguments, run.store.location]) == report([run.store.location, *arguments]) == 2
    first, again = capsys.readouterr().err.splitlines()
    assert first == again
    assert "no run here" not in first


def test_members_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, GRID, lambda spec: ...)
    assert maps(["--out", str(tmp_path / "maps.png"), "--members", "student1", "leader", run.store.location]) == 2
    assert "no checkpoint of these trials yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: RUN"),
        (["--best"], "the following arguments are required: RUN"),
        (["--plot", "elsewhere"], "argument --plot: expected at least one argument"),
    ],
)
def test_a_run_that_is_not_given(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report(arguments)
    assert said in capsys.readouterr().err


def test_no_trials_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, CHOSEN, lambda spec: ...)
    assert run.trials() == {}
    assert report([run.store.location, "--where", "method=ffsd"]) == 2
    assert "the run has no trials yet" in capsys.readouterr().err
