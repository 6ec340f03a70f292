"""Accuracies against a setting: the curves from records alone, and the files they are drawn into."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import UserError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.plots.sweep import Curves, curves
from ffsd_ray.report.results import Epoch
from ffsd_ray.report.tables.table import result_table

from helpers.synthetic_records import Outcome, approx_cell, result

JOB = """
name: mine
data: {name: digits}
backbone: {name: resnet20}
method: {name: ffsd}
train: {epochs: 10}
seed: [0, 1, 2]
search:
  grid: {method.students: [4, 2, 3]}
  also: [{method: {name: baseline}}]
"""


def outcome(spec: TrialSpec) -> dict[str, Any]:
    """Leader 80 + students ± 1, baseline 75 ± 1."""
    if spec.method.name == "baseline":
        return result(spec, 74.0 + spec.seed, 70.0)
    return result(spec, 70.0, 60.0, series={"leader": 79.0 + getattr(spec.method, "students", 0) + spec.seed})


def lines(run: RunRecords, key: str, epoch: Epoch) -> Curves:
    return curves(result_table(run, [epoch]), key)


def test_curves_rise_over_the_values_in_order(record: Any) -> None:
    found = lines(record(JOB, outcome), "method.students", "best")
    assert found.values == (2, 3, 4)
    (panel,) = found.panels
    assert panel.name == ""
    assert panel.curves["Leader"] == {n: pytest.approx((80.0 + n, 1.0)) for n in (2, 3, 4)}
    assert set(panel.curves) == {"Leader", "Fusion", "Mean of common", "Ens (logits)", "Ens (any)"}
    assert panel.baseline == pytest.approx((75.0, 1.0))
    assert found.captions[0] == "digits, resnet20, 10 epochs, batch size 128, lr 0.1, fp32"
    assert any("seed 0, 1, 2" in caption for caption in found.captions)
    assert not any(caption.startswith("Gain") for caption in found.captions)


def test_last_epoch(record: Any) -> None:
    found = lines(record(JOB, outcome), "method.students", "last")
    assert found.panels[0].curves["Leader"][2].mean == pytest.approx(60.02)
    assert not any("best epoch" in caption for caption in found.captions)


def test_no_baseline_no_line(record: Any) -> None:
    assert lines(record(JOB.partition("  also")[0], outcome), "method.students", "best").panels[0].baseline is None


def test_a_baseline_that_varies_too_is_a_curve(record: Any) -> None:
    job = JOB.replace("grid: {method.students: [4, 2, 3]}", "grid: {train.lr: [0.1, 0.2]}")
    job = job.replace(
        "[{method: {name: baseline}}]", "[{method: {name: baseline}, train.lr: 0.2}, {method.name: baseline}]"
    )
    run = record(job, lambda spec: result(spec, 70 + 100 * spec.train.lr, 1.0))
    (panel,) = lines(run, "train.lr", "best").panels
    assert panel.baseline is None
    assert {lr: cell.mean for lr, cell in panel.curves["Baseline"].items()} == {
        0.1: pytest.approx(80.0),
        0.2: pytest.approx(90.0),
    }


def test_what_else_varies_has_a_panel_each(record: Any) -> None:
    job = JOB.replace("[4, 2, 3]", "[4, 2, 3], method.name: [dml, ffsd], train.lr: [0.1, 0.2]")
    found = lines(record(job, outcome), "method.students", "best")
    assert {panel.name for panel in found.panels} == {f"{m}, lr={lr}" for m in ("dml", "ffsd") for lr in (0.1, 0.2)}
    assert "Leader" not in next(panel for panel in found.panels if "dml" in panel.name).curves


def test_other_keys_swept_beside_it_stay_out(record: Any) -> None:
    job = JOB.replace(
        "grid: {method.students: [4, 2, 3]}", "sweep: {method.students: [2, 3], method.alpha: [0.5, 1, 2]}"
    )
    (panel,) = lines(record(job, outcome), "method.students", "best").panels
    assert set(panel.curves["Leader"]) == {2, 3}


def test_kinds_are_compared_whole(record: Any) -> None:
    job = JOB.replace("method.students: [4, 2, 3]", "backbone.name: [resnet32, resnet20]")
    found = lines(record(job, outcome), "backbone.name", "best")
    assert found.values == ("resnet32", "resnet20")


def test_failed_trials_are_told(record: Any) -> None:
    def end(spec: TrialSpec) -> Outcome:
        return "it diverged" if getattr(spec.method, "students", 0) == 3 and spec.seed else outcome(spec)

    found = lines(record(JOB, end), "method.students", "best")
    assert found.panels[0].curves["Leader"][3] == approx_cell(82.0, None)
    assert [caption for caption in found.captions if "it diverged" in caption] == [
        f"ffsd n=3, seed {seed}: TrialError: it diverged" for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("method.studnets", "Did you mean `method.students`?"),
        ("seed", "not a setting of trials"),
        ("method", "not a setting of trials"),
        ("train.lr", "no two completed configurations differ in it alone"),
    ],
)
def test_nothing_to_plot(record: Any, key: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        lines(record(JOB, outcome), key, "best")


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run, out = record(JOB, outcome), tmp_path / f"figure.{ending}"
    assert main([run.store.location, "--plot", "method.students", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ("method.students: [2, 3]", ["2", "3"]),
        ("method.lambda_div: [1e-7, 1e-5, 0.1]", ["1e-7", "1e-5", "0.1"]),
        ("method.lambda_fea: [0, 1, 1e+4]", ["0", "1", "1e4"]),
        ("method.diversity: [none, l2]", ["none", "l2"]),
        ("method.fusion: [true, false]", ["true", "false"]),
    ],
)
def test_a_picture_says_what_it_shows(record: Any, tmp_path: Path, values: str, ticks: list[str]) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run, out = record(JOB.replace("method.students: [4, 2, 3]", values), outcome), tmp_path / "figure.svg"
    key = values.partition(":")[0]
    assert main([run.store.location, "--plot", key, "--out", str(out)]) == 0
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text())
    for text in (*ticks, key, "Leader", "Fusion", "Mean of common", "Ens (any)", "Ens (logits)", "Baseline"):
        assert text in texts
    assert f"mine: accuracy against {key}, best epoch" in texts
    assert "digits, resnet20, 10 epochs, batch size 128, lr 0.1, fp32" in texts
    assert "nan" not in " ".join(texts).lower()


@pytest.mark.parametrize(
    ("out", "said"), [("figure.gif", ".png, .pdf, .svg"), ("nowhere/figure.png", "there is no folder")]
)
def test_a_file_that_cannot_be(
    record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run = record(JOB, outcome)
    assert main([run.store.location, "--plot", "method.students", "--out", str(tmp_path / out)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.thorough
def test_without_matplotlib(record: Any) -> None:
    run = record(JOB, outcome)
    program = (
        "import sys; sys.modules['matplotlib'] = None; from ffsd_ray.report.__main__ import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, run.store.location, "--plot", "method.students"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'pictures need matplotlib: pip install "ffsd-ray[plot]"\n'
