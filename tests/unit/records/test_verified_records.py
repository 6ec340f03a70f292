"""Records that are another trial's, or not as they were written: none of their numbers is shown or trained on."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ffsd_ray import classify, evaluate, export
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DamagedRecords, RecordsError
from ffsd_ray.records.__main__ import main as records
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.collect import collect, histories
from ffsd_ray.report.cost import main as cost
from ffsd_ray.report.maps import main as maps
from ffsd_ray.report.methods import main as methods
from ffsd_ray.report.tables.table import result_table
from ffsd_ray.stamp import check_stamp

from helpers.small_run import again, local_job, train, write_json

#: Two trials that differ in nothing but their seeds: their files are of the same shape.
JOB = local_job(
    "method: {name: baseline}",
    "train: {epochs: 2, batch_size: 32, lr: 0.05, steps_per_epoch: 2}",
    "scale: {threads: 1}",
    "seed: [0, 1]",
)
CHECKPOINT = "checkpoints/epoch-000002.pt"
FILES = [
    "spec.json", "environment.json", "history.parquet", "result.json", "model_best.safetensors",
    "model_last.safetensors", CHECKPOINT,
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), JOB)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The same to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


def run_of(folder: Path) -> RunRecords:
    return RunRecords.open(str(folder / "runs" / "small"))


def trials(folder: Path) -> tuple[Path, Path]:
    """The folders of the two trials, by seed."""
    first, second = (Path(run_of(folder).trial(identity).store.location) for identity in run_of(folder).trials())
    return first, second


def verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """The status of the command, what it says of files, and its summary."""
    capsys.readouterr()
    status = records(["verify", str(folder / "runs" / "small")])
    *lines, summary = capsys.readouterr().out.splitlines()
    return status, lines, summary


def read(file: Path) -> None:
    """Read a file of a trial, or job.json, as reports and training do."""
    if file.name == "job.json":
        RunRecords(Store(str(file.parent))).specs()
        return
    in_trial = file.parent.name != "checkpoints"
    TrialRecords(Store(str(file.parent if in_trial else file.parents[1]))).check(
        file.name if in_trial else f"checkpoints/{file.name}"
    )


# ---- flipped bits


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, "../../job.json"])
def test_no_flipped_bit_goes_unnoticed(name: str, folder: Path) -> None:
    file = (trials(folder)[0] / name).resolve()
    whole, draw = file.read_bytes(), random.Random(0)
    stamp = whole.index(b"ffsd_ray ")
    # Anywhere, where the format has room for something else, and in the stamp itself.
    bits = [draw.randrange(8 * len(whole)) for _ in range(20)] + [0, 8 * len(whole) - 1]
    bits += [draw.randrange(8 * stamp, 8 * (stamp + 100)) for _ in range(20)]
    for bit in bits:
        flip(file, bit)
        with pytest.raises(DamagedRecords) as refused:
            read(file)
        assert str(refused.value).startswith(f"{file}: ")
        file.write_bytes(whole)
    read(file)


def test_networks_with_a_flipped_bit_are_not_used(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trials(folder)[0] / "model_best.safetensors"
    flip(file, 8 * len(file.read_bytes()) - 9)  # of a weight
    with pytest.raises(RecordsError, match="its content is not what its SHA-256 was taken of"):
        load_model(file)
    for command, arguments in (
        (evaluate.main, []),
        (classify.main, [str(tmp_path / "picture.jpg")]),
        (export.main, ["--onnx", str(tmp_path / "x.onnx")]),
    ):
        assert command([str(file), *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"{file}: its content is not what its SHA-256 was taken of")


# ---- another trial's files


def test_a_sound_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "small"
    assert verified(folder, capsys) == (0, [], f"{run}: 16 files read, 0 faults")


@pytest.mark.parametrize("name", FILES)
def test_another_trials_file_is_found(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trials(folder)
    shutil.copy(second / name, first / name)
    status, lines, summary = verified(folder, capsys)
    expected = f"{first / name}: expected a file of trial {first.name}, found one of trial {second.name}; it is damaged"
    assert (status, len(lines), summary.rpartition(" ")[0][-1]) == (1, 1, "1")
    assert lines[0].startswith(expected)


READERS: dict[str, tuple[Any, list[str], list[str]]] = {
    "terminal": (report, [], ["result.json"]),
    "csv": (report, ["--format", "csv"], ["result.json"]),
    "parquet": (report, ["--format", "parquet", "--out", "OUT.parquet"], ["result.json"]),
    "paper": (report, ["--paper", "table1"], ["result.json"]),
    "best": (report, ["--best", "--by-test"], ["result.json"]),
    "curves": (report, ["--plot", "epochs", "--out", "OUT.png"], ["result.json", "history.parquet"]),
    "html": (report, ["--html", "OUT.html"], ["result.json", "history.parquet", "environment.json"]),
    "methods": (methods, [], ["result.json", "environment.json"]),
    "cost": (cost, [], ["result.json", "environment.json"]),
    "maps": (maps, ["--out", "OUT.png", "--images", "1"], ["result.json", CHECKPOINT]),
}


@pytest.mark.parametrize(("command", "name"), [(one, name) for one, (_, _, names) in READERS.items() for name in names])
def test_reports_leave_out_a_trial_with_anothers_file(
    command: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trials(folder)
    shutil.copy(second / name, first / name)
    main, arguments, _ = READERS[command]
    out = [part.replace("OUT", str(folder / command)) for part in arguments]
    capsys.readouterr()
    assert main([str(folder / "runs" / "small"), *out]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Left out: {first / name}: expected a file of trial {first.name}, found one of trial ")
    assert said.count("\n") == 1


def test_swapped_trials_are_in_no_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trials(folder)
    first.rename(folder / "between")
    second.rename(first)
    (folder / "between").rename(second)
    assert report([str(folder / "runs" / "small"), "--format", "csv"]) == 1
    output = capsys.readouterr()
    assert output.err.count("Left out: ") == 2
    table = result_table(run_of(folder))
    assert [row.seeds for row in table.rows] == [(), ()]
    assert all(f"{one / 'result.json'}: expected a file of trial" in "".join(table.notes) for one in (first, second))
    assert report([str(folder / "runs" / "small"), "--best", "--by-test"]) == 2
    assert capsys.readouterr().err.count("Left out: ") == 2, "not only that there is nothing to choose from"


def test_a_trial_copied_over_another_is_not_its_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which made the same result twice, with a deviation of 0."""
    first, second = trials(folder)
    shutil.rmtree(first)
    shutil.copytree(second, first)
    [best, _] = result_table(run_of(folder)).rows
    assert best.seeds == (1,)
    assert best.primary is not None
    assert best.primary.accuracy.std is None
    # Nor does the run go on with it; nothing of it is lost.
    assert again(folder, "--resume") == 1
    output = capsys.readouterr()
    assert f"To be trained again: {first / 'result.json'}: expected a file of trial {first.name}" in output.out
    assert f"failed: {first / CHECKPOINT}: expected a file of trial {first.name}" in output.out
    assert f"Left out: {first / 'result.json'}" in output.err
    shutil.rmtree(first)
    assert again(folder, "--resume") == 0
    assert verified(folder, capsys)[0] == 0


def test_another_seeds_checkpoint_is_not_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trials(folder)
    whole, weights = (load_file(first / "model_last.safetensors") for _ in range(2))
    (first / "result.json").unlink()
    shutil.copy(second / CHECKPOINT, first / CHECKPOINT)
    assert again(folder, "--resume") == 1
    error = json.loads((first / "error.json").read_text())
    assert error["message"].startswith(f"{first / CHECKPOINT}: expected a file of trial {first.name}, found one of ")
    (first / CHECKPOINT).unlink()
    assert again(folder, "--resume") == 0
    weights = load_file(first / "model_last.safetensors")
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert capsys.readouterr().err == ""


def test_a_history_that_ends_otherwise_than_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sound by itself: from two attempts at the same trial, say."""
    first, _ = trials(folder)
    own = TrialRecords(Store(str(first)))
    rows = own.history()
    own.write_history([rows[0], rows[1] | {"lr": 7.0}])
    said = f"{first / 'history.parquet'}: expected as its last row what result.json has as `last`"
    status, [line], _ = verified(folder, capsys)
    assert (status, line.startswith(said)) == (1, True)
    run = run_of(folder)
    assert [trial.damaged for trial in collect(run)] == [False, False], "nothing else is read"
    assert [trial.damaged for trial in collect(run, histories)] == [True, False]
    told: list[str] = []
    assert list(RunRecords(Store(str(folder / "runs" / "new"))).reuse([first.name], told.append)) == []
    assert told[0].startswith(said)
    # A trial that a scheduler has stopped may have begun another epoch before it noticed.
    own.write_history(rows)
    own.finish(own.result() | {"ended": "stopped at 1", "last": rows[0]})
    assert own.history_of(own.result()) == rows[:1]


# ---- edited files


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_edited_job_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "runs" / "small" / "job.json"
    replaced(file, '"lr": 0.05', '"lr": 0.06')
    for command in ("terminal", "methods", "cost"):
        main, arguments, _ = READERS[command]
        assert main([str(file.parent), *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"{file}: its content is not what its SHA-256 was taken of")
    # Though it has a stamp of its own: the specs are not of these trials.
    write_json(file, json.loads(file.read_text()))
    first, _ = trials(folder)
    assert report([str(file.parent)]) == 2
    assert capsys.readouterr().err.startswith(f"{file}: trials.{first.name}: this version computes ")
    status, lines, _ = verified(folder, capsys)
    assert (status, len(lines)) == (1, 1)
    # The job's file says what it was: the run goes on, and writes it anew.
    assert again(folder, "--resume") == 0
    assert verified(folder, capsys)[0] == 0


def test_an_edited_accuracy_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = trials(folder)
    result = json.loads((first / "result.json").read_text())
    replaced(first / "result.json", f'"top1": {result["best"]["student"]["top1"]}', '"top1": 99.99')
    assert report([str(folder / "runs" / "small"), "--format", "csv"]) == 1
    output = capsys.readouterr()
    assert "99.99" not in output.out
    assert output.err.startswith(f"Left out: {first / 'result.json'}: its content is not what its SHA-256 was taken of")


def test_a_spec_of_another_trial_under_a_sound_stamp(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trials(folder)
    write_json(first / "spec.json", json.loads((second / "spec.json").read_text()))
    status, [line], _ = verified(folder, capsys)
    said = f"{first / 'spec.json'}: this version computes {second.name} as the identity of the spec"
    assert (status, line.startswith(said)) == (1, True)


# ---- what is missing, and what does not belong there


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("result.json", CHECKPOINT)])
def test_a_completed_trial_lacks_a_file(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = trials(folder)
    (first / name).unlink()
    status, [line], _ = verified(folder, capsys)
    assert (status, line) == (1, f"{first / name}: cannot be read: there is no such file")


def test_what_is_told_and_no_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trials(folder)
    shutil.rmtree(first)
    (second.parent / "a note").write_text("x")
    (second / ".result.json.7.part").write_text("half")
    (second / "checkpoints" / "mine.pt").write_text("x")
    status, lines, _ = verified(folder, capsys)
    assert status == 0
    assert lines == [
        f"Note: {first}: no records yet",
        f"Note: {second.parent / 'a note'}: of no planned trial; not read",
        f"Note: {second / '.result.json.7.part'}: not a file of a trial; not read",
        f"Note: {second / 'checkpoints' / 'mine.pt'}: not a file of a trial; not read",
    ]
    os.rename(second, second.parent / ("0" * 16))
    (folder / "runs" / "small" / "job.json").write_text("{}")
    status, lines, _ = verified(folder, capsys)
    assert status == 1, "each folder is read then, as what it is named after"
    assert any(f"{'0' * 16}/result.json: expected a file of trial {'0' * 16}" in line for line in lines)
    with pytest.raises(SystemExit):
        records([])
    assert records(["verify", str(folder)]) == 2


# ---- other programs


def test_others_read_the_files_as_ever(folder: Path) -> None:
    first, _ = trials(folder)
    own = TrialRecords(Store(str(first)))
    assert pd.read_parquet(first / "history.parquet").to_dict("records") == own.history()
    assert (
        load_file(first / "model_last.safetensors").keys()
        == load_model(first / "model_last.safetensors").backbone.state_dict().keys()
    )
    assert load_model(first / "model_last.safetensors").card.trial == first.name
    for mapped in (True, False):
        state = torch.load(first / CHECKPOINT, weights_only=True, mmap=mapped)
        assert state["progress"]["rows"] == own.history()


def test_a_stamp_among_other_text() -> None:
    """An exception's message may quote one: the file's own comes first."""
    own = TrialRecords(Store("/nowhere"))
    written: dict[str, Any] = {}
    own.store.write = lambda name, content: written.update({name: bytes(content)})  # type: ignore[method-assign]
    own.fail("TrialError", f"ffsd_ray trial else sha256 {'1' * 64}")
    check_stamp(written["error.json"], "trial nowhere")
