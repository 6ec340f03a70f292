"""Heat maps, parallel coordinates and training curves: what they show from records alone, and the files."""

import re
from math import log10
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import UserError
from ffsd_ray.methods.ffsd import FfsdSettings
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.plots.heatmap import heat_map
from ffsd_ray.report.plots.learning_curves import training_curves
from ffsd_ray.report.plots.parallel_coordinates import parallel
from ffsd_ray.report.plots.style import TRAINING
from ffsd_ray.report.plots.sweep import curves
from ffsd_ray.report.tables.table import result_table

from helpers.synthetic_records import Outcome, result
from helpers.tiers import often

DIV, FEA, SELF = "method.lambda_div", "method.lambda_fea", "method.lambda_self"
JOB = """
name: mine
data: {name: digits, validation: 0.1}
backbone: {name: resnet20}
method: {name: ffsd}
seed: [0, 1, 2]
search:
  grid:
    method.lambda_div: [1e-3, 1e-5, 1e-7]
    method.lambda_fea: [1, 10]
  also: [{method: {name: baseline}}]
"""
ALL = JOB.replace("    method.lambda_fea", "    method.lambda_self: [0, 1000]\n    method.lambda_fea")


def outcome(spec: TrialSpec) -> dict[str, Any]:
    """Leader 90 ± 1 less the decades from 1e-5; on the held-out images, from 1e-7 instead. λ_fea adds a tenth."""
    if spec.method.name == "baseline":
        return result(spec, 75.0, 70.0, "val")
    assert isinstance(spec.method, FfsdSettings)
    decade, fea = log10(spec.method.lambda_div), spec.method.lambda_fea
    top = 90.0 - abs(decade + 5) + spec.seed + fea / 100
    found = result(spec, 70.0, 60.0, "val", series={"leader": top})
    found["best"]["leader"]["selected_by"] = 90.0 - abs(decade + 7) + fea / 100
    return found


def test_a_heat_map_has_the_primary_accuracy_at_each_pair_of_values(record: Any) -> None:
    found = heat_map(result_table(record(JOB, outcome), ["best"]), [DIV, FEA])
    assert found.values == ((1e-7, 1e-5, 1e-3), (1, 10))
    (panel,) = found.panels
    assert panel.cells[1e-3, 10] == pytest.approx((89.1, 1.0))
    assert len(panel.cells) == 6
    assert found.is_grid
    assert panel.baseline == pytest.approx((75.0, 0.0))
    assert found.title == f"mine: Leader over {DIV} and {FEA}, best epoch"


def test_the_best_is_the_best_on_the_split_that_chose_the_epochs(record: Any) -> None:
    """Where images were held out, the test images have no say."""
    table = result_table(record(JOB, outcome), ["best"])
    assert heat_map(table, [DIV, FEA]).panels[0].best == (1e-7, 10)
    said = "framed: the best, highest mean accuracy on the held-out validation images, best epoch"
    assert heat_map(table, [DIV, FEA]).captions[-1] == said


def test_the_best_by_test_images_says_so(record: Any) -> None:
    run = record(
        JOB.replace(", validation: 0.1", ""),
        lambda spec: result(spec, 70 + getattr(spec.method, "lambda_fea", 0), 60.0),
    )
    found = heat_map(result_table(run, ["last"]), [FEA, DIV])
    assert "on the test images, last epoch" in found.captions[-1]


def test_a_hole_is_no_cell(record: Any) -> None:
    def end(spec: TrialSpec) -> Outcome:
        settings = spec.method
        gone = isinstance(settings, FfsdSettings) and (settings.lambda_div, settings.lambda_fea) == (1e-3, 10)
        return "it diverged" if gone else outcome(spec)

    (panel,) = heat_map(result_table(record(JOB, end), ["best"]), [DIV, FEA]).panels
    assert (1e-3, 10) not in panel.cells
    assert len(panel.cells) == 5


def test_one_at_a_time_sweeps_are_a_cross(record: Any) -> None:
    found = heat_map(result_table(record(JOB.replace("grid", "sweep"), outcome), ["best"]), [DIV, FEA])
    assert not found.is_grid


def test_what_else_varies_has_a_map_each(record: Any) -> None:
    found = heat_map(result_table(record(ALL, outcome), ["best"]), [DIV, FEA])
    assert {panel.name for panel in found.panels} == {"lambda_self=0.0", "lambda_self=1000.0"}
    assert found.captions[-1].startswith("framed: each panel’s best")


def test_parallel_coordinates_have_a_line_a_configuration(record: Any) -> None:
    found = parallel(result_table(record(ALL, outcome), ["best"]), [DIV, SELF, FEA])
    assert found.values == ((1e-7, 1e-5, 1e-3), (0, 1000), (1, 10))
    lines = {line.values: line.cell for line in found.lines}
    assert len(lines) == 12
    assert lines[1e-5, 1000, 1] == pytest.approx((91.01, 1.0))
    assert found.best is not None
    assert found.best.values == (1e-7, 0, 10)
    assert "1 of 13 configurations lack one of these keys" in found.captions


def test_training_curves_end_in_the_last_epoch(record: Any) -> None:
    run = record(JOB.replace("[0, 1, 2]", "[0, 1]"), outcome)
    for identity, planned in run.trials().items():
        name = "student" if planned["method"]["name"] == "baseline" else "leader"
        tops = [10.0 * epoch + planned["seed"] for epoch in (1, 2, 3)][: 2 + planned["seed"]]
        trial = run.trial(identity)
        rows = [
            {**trial.result()["last"], "epoch": epoch, f"test/{name}/top1": top, f"train/{name}/top1": top / 2}
            for epoch, top in enumerate(tops, 1)
        ]
        trial.write_history(rows)
        trial.finish(trial.result() | {"last": rows[-1]})
    table = result_table(run, ["last"])
    found = training_curves(run, table)
    assert [panel.name for panel in found.panels] == [row.configuration for row in table.rows]
    panel = found.panels[0]
    assert set(panel.curves) == {"Mean of common", "Ens (any)", "Ens (logits)", "Fusion", "Leader", TRAINING}
    assert panel.curves["Leader"][2] == pytest.approx((20.5, 0.5**0.5))
    # The seed that stopped before has no part in it.
    assert panel.curves["Leader"][3] == (31.0, None)
    assert found.panels[-1].curves["Baseline"][1] == pytest.approx((10.5, 0.5**0.5))


def test_training_curves_have_the_epochs_that_were_evaluated(record: Any) -> None:
    run = record(JOB.replace("[0, 1, 2]", "[0, 1]"), outcome)
    for identity in run.trials():
        trial = run.trial(identity)
        last = trial.result()["last"] | {"epoch": 4, "train/leader/top1": 4.0, "train/student/top1": 4.0}
        trained = {key: value for key, value in last.items() if not key.startswith("test/")}
        trial.write_history([{**(trained if epoch % 2 else last), "epoch": epoch} for epoch in (1, 2, 3, 4)])
        trial.finish(trial.result() | {"last": last})
    panel = training_curves(run, result_table(run, ["last"])).panels[0]
    assert list(panel.curves["Leader"]) == [2, 4]
    assert list(panel.curves[TRAINING]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([DIV, "method.lambda_fee"], "Did you mean `method.lambda_fea`?"),
        ([DIV, DIV], "is there twice"),
        ([DIV, "train.lr"], "no two completed configurations differ in these alone"),
        ([DIV, FEA, "method.lambda_self", "epochs"], "--plot epochs: not a setting of trials"),
        (["epochs"], "no trial has completed"),
    ],
)
def test_nothing_to_plot(
    record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: list[str], said: str
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run = record(JOB, outcome if keys != ["epochs"] else lambda spec: None)
    assert main([run.store.location, "--plot", *keys, "--out", str(tmp_path / "figure.png")]) == 2
    assert said in capsys.readouterr().err


def test_two_configurations_at_one_place_are_not_one(record: Any) -> None:
    job = JOB.replace("method.lambda_fea: [1, 10]", "backbone.name: [resnet20, resnet32]").replace(
        "method.lambda_div: [1e-3, 1e-5, 1e-7]", "method: [{name: dml, students: 2}, {name: dml, students: 3}]"
    )
    run = record(job, lambda spec: result(spec, 70.0, 60.0, "val"))
    with pytest.raises(UserError, match=re.escape("both have method.name dml")):
        curves(result_table(run, ["best"]), "method.name")


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("keys", often([[DIV, FEA]], [[DIV, FEA], [DIV, SELF, FEA]]))
def test_files(record: Any, tmp_path: Path, keys: list[str], ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run, out = record(ALL.replace("[0, 1, 2]", "0"), outcome), tmp_path / f"figure.{ending}"
    assert main([run.store.location, "--plot", *keys, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(magic)


def test_a_heat_map_says_what_it_shows(record: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run, out = record(JOB, outcome), tmp_path / "figure.svg"
    assert main([run.store.location, "--plot", DIV, FEA, "--out", str(out)]) == 0
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text())
    for text in ("1e-7", "1e-5", "0.001", "1", "10", f"{DIV} (logarithmic)", FEA, "89.10", "± 1.00"):
        assert text in texts
    assert "Leader: top-1 accuracy (%)" in texts
    assert "baseline 75.00 ± 0.00" in texts
    assert any(text.startswith("digits, resnet20, ") for text in texts)
    assert "<image" not in out.read_text()


def test_parallel_coordinates_say_what_they_show(record: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run, out = record(ALL, outcome), tmp_path / "figure.svg"
    assert main([run.store.location, "--plot", DIV, SELF, FEA, "--out", str(out)]) == 0
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text())
    for text in ("1e-7", "1e-5", "0.001", "0", "1000", "lambda_div", "(logarithmic)", "top-1 (%)"):
        assert text in texts
    assert "nan" not in " ".join(texts).lower()
