"""The charts of a run's page: what they show, and that Plotly takes them."""

from typing import Any

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.page.charts import Chart, charts_of_classes, charts_of_epochs, charts_of_settings
from ffsd_ray.report.page.figure import Figure
from ffsd_ray.report.tables.table import result_table

from helpers.synthetic_records import Outcome, result

pytest.importorskip("plotly", reason="the extra `plot` is not installed")

JOB = """
name: mine
data: {name: digits}
backbone: {name: resnet8}
method: {name: ffsd}
seed: [0, 1, 2]
search:
  grid:
    method.students: [2, 3]
    method.lambda_fea: [1, 10]
    train.lr: [0.1, 0.2]
  also: [{method: {name: baseline}}]
"""
METHODS = """
name: mine
data: {name: digits}
backbone: {name: resnet8}
seed: [0, 1, 2]
search: {grid: {method: [baseline, dml, ffsd]}}
"""


def outcome(spec: TrialSpec) -> Outcome:
    """80, students, and tenths: 1 for the greater λ, 2 for the greater learning rate; ± 1."""
    if spec.seed == 2 and spec.method.name == "ffsd":
        return None
    tenths = (getattr(spec.method, "lambda_fea", 0) == 10) + 2 * (spec.train.lr == 0.2)
    primary = "leader" if spec.method.name == "ffsd" else "student"
    top = 80.0 + getattr(spec.method, "students", 0) + tenths / 10 + spec.seed
    return result(spec, top, 70.0, series={primary: top})


def figure_of(charts: list[Chart], title: str) -> Figure:
    """The first of the chart with these words in its title."""
    return next(chart for chart in charts if title in chart.title).figures[0][1]


def test_settings(record: Any) -> None:
    charts = charts_of_settings(result_table(record(JOB, outcome), ["best"]))
    assert len(charts) == 7, "each of three settings, each pair, and all together"
    lines = figure_of(charts, "accuracy against method.students")
    leader = next(trace for trace in lines["data"] if trace["name"] == "Leader" and "fea=10.0, lr=0.2" in str(trace))
    assert (leader["x"], leader["y"]) == ([2.0, 3.0], [82.8, 83.8])
    assert leader["customdata"] == ["82.80 ± 0.71 (2 seeds)", "83.80 ± 0.71 (2 seeds)"]
    assert leader["error_y"]["array"] == [0.7071, 0.7071]
    shown = {trace["name"] for trace in lines["data"] if trace.get("visible", True) is True}
    assert shown == {"Leader", "Baseline"}, "the others wait for a click"
    [heat] = figure_of(charts, "over method.students and train.lr")["data"]
    assert heat["z"] == [[82.5, 83.5], [82.7, 83.7]]
    assert heat["text"][1][1] == "83.70<br>± 0.71"
    assert heat["hovertext"][0][0] == "method.students 2<br>train.lr 0.1<br>Leader: 82.50 ± 0.71 (2 seeds)"
    drawn = figure_of(charts, "over 3 settings")["data"]
    assert len(drawn) == 8
    best = drawn[-1]
    assert best["line"]["width"] > drawn[0]["line"]["width"]
    assert "method.students 3" in best["text"]
    assert best["y"][-1] == 1


def history(run: RunRecords) -> None:
    """Three epochs of every trial, of which that of ffsd's third seed has not ended: 10, 20, 30 and the seed."""
    for identity, spec in run.specs().items():
        trial, primary = run.trial(identity), spec.method.primary_series
        unfinished = spec.seed == 2 and spec.method.name == "ffsd"
        rows: list[dict[str, float]] = [
            {
                "epoch": epoch,
                "images_per_second": 100.0,
                f"train/{primary}/loss": 3.0 / epoch,
                f"test/{primary}/top1": 10.0 * epoch + spec.seed,
            }
            for epoch in ((1, 2) if unfinished else (1, 2, 3))
        ]
        if not unfinished:
            ended = {key: value for key, value in trial.result().items() if key != "stamp"}
            rows[-1] = ended["last"] | rows[-1]
            trial.finish(ended | {"last": rows[-1]})
        trial.write_history(rows)


def test_methods_over_epochs(record: Any) -> None:
    history(run := record(METHODS, outcome))
    charts = charts_of_epochs(run, result_table(run))
    assert "trials that have not ended count as far as they have come" in charts[0].captions
    accuracy, loss, members = (
        figure_of(charts, title)["data"] for title in ("test accuracy", "training loss", "members")
    )
    lines = {trace["name"]: trace for trace in accuracy if trace.get("showlegend", True)}
    assert list(lines) == ["baseline", "dml n=2", "ffsd n=2"]
    assert lines["ffsd n=2"]["x"] == [1, 2, 3]
    assert lines["ffsd n=2"]["customdata"] == [
        "11.00 ± 1.00 (3 seeds)",
        "21.00 ± 1.00 (3 seeds)",
        "30.50 ± 0.71 (2 seeds)",
    ]
    band = next(trace for trace in accuracy if not trace.get("showlegend", True))
    assert band["y"] == [12.0, 22.0, 32.0, 30.0, 20.0, 10.0]
    assert band["legendgroup"] == accuracy[0]["legendgroup"], "it goes with its line"
    assert [trace["y"] for trace in loss if trace.get("showlegend", True)] == [[3.0, 1.5, 1.0]] * 3
    assert {trace["name"] for trace in members if trace["visible"]} == {"Mean of common", "Ens (any)", "Ens (logits)"}


CONFUSION = {0: {"cat": {"cat": 3, "dog": 1}, "dog": {"dog": 2}}, 1: {"cat": {"cat": 4}, "dog": {"cat": 1, "dog": 1}}}


def confused(spec: TrialSpec) -> Outcome:
    """As an earlier version had recorded the baselines, and the third seed's trials."""
    recorded = spec.seed in CONFUSION and spec.method.name != "baseline"
    return result(spec, 90.0, 80.0) | ({"confusion": CONFUSION[spec.seed]} if recorded else {})


def test_confusion_matrices_are_summed_over_seeds(record: Any) -> None:
    """Of each configuration that has them, with its classes' accuracies."""
    [chart] = charts_of_classes(result_table(record(METHODS, confused)))
    [(_, figure)] = chart.figures
    first, second = figure["data"]
    assert first["customdata"] == second["customdata"] == [[7, 1], [1, 3]]
    assert first["text"] == [["7", "1"], ["1", "3"]]
    assert (first["visible"], second["visible"]) == (True, False)
    assert first["z"][1] == [0.5, 0.866]
    assert figure["layout"]["yaxis"]["ticktext"] == ["cat (87.5 %)", "dog (75.0 %)"]
    assert [choice["label"] for choice in figure["layout"]["updatemenus"][0]["buttons"]] == ["dml n=2", "ffsd n=2"]
    assert charts_of_classes(result_table(record(METHODS, outcome))) == []


@pytest.mark.thorough
def test_plotly_takes_all_that_is_said_to_it(record: Any) -> None:
    from plotly.graph_objects import Figure as Checked

    history(run := record(METHODS.replace("method: [", "train.lr: [0.1, 0.2], method: ["), outcome))
    charts = [*charts_of_epochs(run, result_table(run)), *charts_of_settings(result_table(run, ["last"]))]
    charts += charts_of_settings(result_table(record(JOB, outcome), ["best"]))
    charts += charts_of_classes(result_table(record(METHODS, confused)))
    assert len(charts) == 3 + 1 + 7 + 1
    for chart in charts:
        for _, figure in chart.figures:
            Checked(figure)  # raises where it has an attribute that there is not


def test_a_run_without_an_epoch_has_no_curves(record: Any) -> None:
    run = record(METHODS, lambda spec: None)
    assert charts_of_epochs(run, result_table(run)) == []
