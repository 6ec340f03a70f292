"""The frame of a run's results, and the same table in every form."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.collect import collect
from ffsd_ray.report.cost import main as cost
from ffsd_ray.report.methods import main as methods
from ffsd_ray.report.results import results_frame
from ffsd_ray.report.tables.export import render_csv, render_markdown
from ffsd_ray.report.tables.table import result_table

from helpers.synthetic_records import Outcome, result, write_run

JOB = """
name: small
data: {name: digits, validation: 0.2}
backbone: {name: resnet20}
train: {epochs: 10, batch_size: 64}
seed: [0, 1]
method: {name: ffsd}
search: {also: [{method: {name: baseline}}]}
"""


def outcome(spec: TrialSpec) -> Outcome:
    """The second baseline has not completed."""
    if spec.method.name == "baseline":
        return result(spec, 80.0, 78.0, "val") if spec.seed == 0 else None
    return result(spec, 90.0, 88.0, "val")


def test_a_line_for_each_trial_epoch_and_column(tmp_path: Path) -> None:
    frame = results_frame(collect(write_run(tmp_path, JOB, outcome)))
    assert len(frame) == 2 * (2 * 7 + 1)
    assert not frame.duplicated(["trial", "epoch", "column"]).any()
    leaders = frame[(frame["column"] == "Leader") & (frame["epoch"] == "last")].set_index("seed")
    assert leaders["test"].to_dict() == {0: pytest.approx(88.02), 1: pytest.approx(88.02)}
    assert leaders["is_primary"].all()
    assert leaders.loc[0, "gain"] == pytest.approx(10.02)
    assert leaders.loc[0, "baseline_test"] == leaders.loc[0, "baseline_selected"] == 78.0
    assert leaders.loc[1, ["baseline", "baseline_test", "gain", "gain_selected"]].isna().all()
    [baseline] = frame.loc[(frame["column"] == "Baseline") & (frame["epoch"] == "best")].itertuples()
    assert (baseline.trial, baseline.gain) == (baseline.baseline, 0.0)


def test_without_completed_trials_the_columns_have_their_types(tmp_path: Path) -> None:
    run = write_run(tmp_path, JOB, lambda spec: ...)
    frame = results_frame(collect(run))
    assert frame.empty
    assert frame["gain"].dtype == "float64"
    table = result_table(run).frame()
    assert [str(kind) for kind in table[["n", "seeds", "notes"]].dtypes] == [
        "int64[pyarrow]",
        "list<item: int64>[pyarrow]",
        "list<item: string>[pyarrow]",
    ]


def test_markdown_is_a_table_to_a_parser(tmp_path: Path) -> None:
    run = write_run(tmp_path, JOB, outcome)
    table = result_table(run)
    tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(table))
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 2
    assert kinds.count("th_open") == 2 * len(table.text().head)
    assert kinds.count("tr_open") == 2 * 3
    aligned = [token.attrs.get("style") for token in tokens if token.type == "th_open"]
    assert aligned[:3] == [None, "text-align:right", "text-align:right"]


def test_csv_has_the_numbers_of_the_frame(tmp_path: Path) -> None:
    table = result_table(write_run(tmp_path, JOB, outcome))
    (tmp_path / "table.csv").write_text(render_csv(table))
    read, frame = pd.read_csv(tmp_path / "table.csv"), table.frame()
    assert list(read.columns) == list(frame.columns)
    for column in ("n", "Leader", "Leader std", "Baseline"):
        assert read[column].to_list() == pytest.approx(frame[column].astype("float64").to_list(), nan_ok=True), column
    assert read["seeds"].to_list() == ["0; 1", "0", "0; 1", "0"]


@pytest.mark.parametrize(
    ("command", "arguments", "columns"),
    [
        (report, ["--paper", "table1"], {"row": "string", "seeds": "list<element: int64>", "ours": "double"}),
        (cost, [], {"component": "string", "macs": "int64", "hours std": "double"}),
        (methods, [], {"accuracy": "double", "parameters trained": "int64", "trials": "list<element: string>"}),
    ],
)
def test_every_table_is_written_as_parquet(
    command: object, arguments: list[str], columns: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    run, out = write_run(tmp_path, JOB, outcome), tmp_path / "table.parquet"
    asked = [run.store.location, *arguments, "--format", "parquet"]
    with pytest.raises(SystemExit):
        command(asked)
    assert "--format parquet needs --out FILE" in capsys.readouterr().err
    assert command([*asked, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    schema = pq.read_schema(out)
    assert {name: str(schema.field(name).type) for name in columns} == columns
    assert schema.metadata[b"title"]
