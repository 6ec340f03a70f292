"""Records that are not as a run writes them: one message that names file and key, whatever reads them."""

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ffsd_ray.errors import DamagedRecords, MissingRecords
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.cost import main as cost
from ffsd_ray.report.maps import main as maps
from ffsd_ray.report.methods import main as methods
from ffsd_ray.stamp import blank, stamped

from helpers.small_run import again, local_job, owner_of, train, trial, write_json, write_stamped
from helpers.tiers import often

JOB = local_job(
    "method: {name: ffsd}",
    "train: {epochs: 1, batch_size: 32, lr: 0.05, steps_per_epoch: 2}",
    "scale: {threads: 1}",
    "search: {also: [{method: {name: kd}}]}",
)

#: Every way of reading a run: its function, and what follows RUN; OUT is a path without its suffix.
COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "terminal": (report, []),
    "markdown": (report, ["--format", "markdown"]),
    "latex": (report, ["--format", "latex"]),
    "csv": (report, ["--format", "csv"]),
    "parquet": (report, ["--format", "parquet", "--out", "OUT.parquet"]),
    "rows": (report, ["--by", "method", "--sort", "accuracy", "--against", "method=kd", "--where", "seed=0"]),
    "paper": (report, ["--paper", "table1"]),
    "best": (report, ["--best", "--by-test"]),
    "html": (report, ["--html", "OUT.html"]),
    "curves": (report, ["--plot", "epochs", "--out", "OUT.png"]),
    "methods": (methods, []),
    "cost": (cost, ["--format", "csv"]),
    "maps": (maps, ["--out", "OUT.png", "--images", "1"]),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job of three trials: ffsd, and kd with its teacher."""
    return train(tmp_path_factory.mktemp("trained"), JOB)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The same to be damaged: links, of which a run replaces those that it writes, and a test those of `place`."""
    return shutil.copytree(trained, tmp_path / "copy", copy_function=os.link)


def resumed(folder: Path, *arguments: str) -> int:
    return again(folder, "--resume", *arguments)


def place(folder: Path, name: str) -> Path:
    """Where such a file is: of the run, or of the trial ffsd; a result makes way for an error."""
    own = trial(folder, "ffsd")
    if name == "error.json":
        (own / "result.json").unlink()
        TrialRecords(Store(str(own))).fail("TrialError", "diverged")
    file = own / ("checkpoints/epoch-000001.pt" if name == "checkpoint" else name)
    if name == "job.json":
        file = folder / "runs" / "small" / name
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    return file


def says(command: str, folder: Path, capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    """What it says on stderr, where it ends as with an error of the user's."""
    main, arguments = COMMANDS[command]
    out = str(folder / command)
    capsys.readouterr()
    assert main([str(folder / "runs" / "small"), *(part.replace("OUT", out) for part in arguments)]) == status
    return capsys.readouterr().err


def left_out(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it says of the one trial that it leaves out, having shown the others."""
    message = says(command, folder, capsys, status=1)
    assert message.startswith("Left out: ")
    assert message.count("\n") == 1
    return message.removeprefix("Left out: ")


def changed(content: Any, key: str, value: Any) -> Any:
    """The content with another value at a dotted key; `...`: without it."""
    if not key:
        return value
    within, *below = key.split(".", 1)
    step: Any = int(within) if isinstance(content, list) else within
    copy = content.copy()
    if below:
        copy[step] = changed(content[step], below[0], value)
    elif value is ...:
        del copy[step]
    else:
        copy[step] = value
    return copy


# ---- the JSON files

TOP1 = "last.test/leader/top1"
#: By file: a key, what stands there instead (...: nothing), and what is said of it.
WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "job.json": [
        ("format", ..., "expected a key format"),
        ("format", 1, "format: expected 2, the format of this version's records"),
        ("job", ..., "expected a key job"),
        ("job", None, "job: expected a valid dictionary, found None"),
        ("job.name", ..., "job: expected a key name"),
        ("job.name", "../elsewhere", "job.name: expected to match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', found '../e"),
        ("job.report.rows", [7], "job.report.rows.0: expected a valid string, found 7"),
        ("job.search.searcher", 7, "job.search.searcher: expected a valid dictionary, found 7"),
        ("job.records", [], "job.records: expected a valid dictionary, found list"),
        ("overrides", "a=b", "overrides: expected a valid list, found 'a=b'"),
        ("trials", [], "trials: expected a valid dictionary, found list"),
        (
            "trials",
            {"../../x": {}},
            "trials.../../x.[key]: expected to match pattern '^[0-9a-f]{16}$', found '../../x'",
        ),
        ("trials", {"0" * 16: 7}, f"trials.{'0' * 16}: expected a valid dictionary, found 7"),
    ],
    "result.json": [
        ("members", "leader", "members: expected a valid list, found 'leader'"),
        ("common", ["student9"], "expected leader (deployed) and common among the members"),
        ("deployed", ..., "expected a key deployed"),
        (
            "primary_series",
            "x\x1b[2J\n",
            "expected as primary_series one of leader, student1, student2, students_mean, ",
        ),
        ("selection", "train", "selection: expected 'val' or 'test', found 'train'"),
        ("last", None, "last: expected a valid dictionary, found None"),
        ("last.epoch", ..., "last: expected a key epoch, a whole number from 1"),
        ("last.epoch", 1.5, "last: expected a key epoch, a whole number from 1"),
        ("last.lr", "x\x1b[2J\n", "last.lr: expected a valid number, found 'x\\x1b[2J\\n'"),
        ("last.images_per_second", 0, "expected a key images_per_second in last, finite and above 0"),
        (TOP1, ..., "expected a key test/leader/top1 in last"),
        (TOP1, float("nan"), "last: expected a finite number as test/leader/top1"),
        ("best", {}, "expected a key leader in best"),
        ("best.leader.top1", ..., "best.leader: expected a key top1"),
        ("best.leader.top1", float("inf"), "best.leader.top1: expected a finite number, found inf"),
        ("best.fusion.selected_by", "9", "best.fusion.selected_by: expected a valid number, found '9'"),
        ("classes", 0, "classes: expected greater than 0, found 0"),
        ("image_size", 1 << 40, "image_size: expected less than 2147483648, found 1099511627776"),
        ("parameters.deployed", ..., "parameters: expected a key deployed"),
        ("seconds", -1, "seconds: expected greater than or equal to 0, found -1"),
        ("confusion.3", {"eight": 1}, "confusion: expected as predicted classes those that are true ones"),
        ("similarity", None, "similarity: expected a valid dictionary, found None"),
        ("ended", "", "ended: expected to match pattern"),
    ],
    "environment.json": [
        ("device", ..., "expected a key device"),
        ("device.threads", "two", "device.threads: expected a valid integer, found 'two'"),
        ("device.workers", True, "device.workers: expected a valid integer, found True"),
        ("began", 7, "began: expected a valid string, found 7"),
    ],
    "error.json": [
        ("kind", ..., "expected a key kind"),
        ("message", ["x"], "message: expected a valid string, found list"),
    ],
}
#: The commands that read a file, less those that would draw pictures first.
READERS = {
    "job.json": list(COMMANDS),
    "result.json": list(COMMANDS),
    "environment.json": ["html", "methods", "cost"],
    "error.json": [name for name in COMMANDS if name not in ("curves", "html")],
}


@pytest.mark.parametrize(
    ("name", "key", "value", "said", "command"),
    # each fault before one command, each command before some
    [
        (name, *fault, READERS[name][index % len(READERS[name])])
        for name, faults in WRONG.items()
        for index, fault in enumerate(faults)
    ],
)
def test_json_of_another_shape(
    name: str, key: str, value: Any, said: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place(folder, name)
    write_json(file, changed(json.loads(file.read_text()), key, value))
    message = (says if name == "job.json" else left_out)(command, folder, capsys)
    assert message.startswith(f"{file}: {said}")
    assert message.endswith("; it is damaged, or from elsewhere\n")
    assert message.count("\n") == 1
    assert message[:-1].isprintable()


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"\xff", b"{}"])
@pytest.mark.parametrize("name", WRONG)
def test_files_of_another_kind(name: str, content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, name)
    file.write_bytes(content)
    for command in READERS[name][:1]:
        message = (says if name == "job.json" else left_out)(command, folder, capsys)
        assert message.startswith(f"{file}: expected a stamp in it")


@pytest.mark.parametrize("name", WRONG)
def test_files_that_only_have_a_stamp(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, name)
    write_stamped(file, b"")
    for command in READERS[name]:
        message = (says if name == "job.json" else left_out)(command, folder, capsys)
        said = "expected JSON, as a run writes it; it is damaged, or from elsewhere (JSONDecodeError)"
        assert message == f"{file}: {said}\n"


def test_whole_records_are_read_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = trial(folder, "ffsd")
    records = TrialRecords(Store(str(own)))
    for name, read in (("spec", records.spec), ("environment", records.environment), ("result", records.result)):
        whole = json.loads((own / f"{name}.json").read_text())
        assert whole.pop("stamp").startswith(f"ffsd_ray trial {own.name} sha256 ")
        assert read() == whole
    file = place(folder, "result.json")
    written = records.result() | {"of a later version": [1]}
    write_json(file, written)
    assert records.result() == written
    assert type(records.result()["last"]["epoch"]) is int
    for name, (main, arguments) in COMMANDS.items():
        out = [part.replace("OUT", str(folder / name)) for part in arguments]
        assert main([str(folder / "runs" / "small"), *out]) == 0, name


def test_a_spec_of_another_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, "job.json")
    identity = trial(folder, "ffsd").name
    write_json(file, changed(json.loads(file.read_text()), f"trials.{identity}.train.lr", "high"))
    for command in COMMANDS:
        message = says(command, folder, capsys)
        assert message.startswith(f"{file}: trials.{identity}: expected a spec of this version: train.lr: expected a ")
        assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("environment.json", ["methods", "cost"]),
        ("../../job.yaml", ["html"]),
    ],
)
def test_files_that_are_not_there(
    name: str, commands: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (trial(folder, "ffsd") / name).resolve()
    file.unlink()
    for command in commands:
        message = (says if name.endswith("job.yaml") else left_out)(command, folder, capsys)
        assert message == f"{file}: cannot be read: there is no such file\n"


# ---- histories


def write_history(file: Path, content: bytes) -> None:
    """Write a table with a sound stamp; what is no table has it behind it."""
    if content[:4] != b"PAR1":
        write_stamped(file, content)
        return
    found, sink = pq.read_table(pa.BufferReader(content)), pa.BufferOutputStream()
    with pq.ParquetWriter(sink, found.schema) as writer:
        writer.write_table(found)
        writer.add_key_value_metadata({"stamp": blank(owner_of(file))})
    file.write_bytes(stamped(sink.getvalue().to_pybytes()))


def table(**columns: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


HISTORIES = {
    "no stamp": (table(epoch=[1]), "expected a stamp in it"),
    "no table": (b"x", "expected Parquet, as a run writes it; it is damaged, or from elsewhere (ArrowInvalid)"),
    "no epoch": (table(lr=[0.1]), "0: expected a key epoch, a whole number from 1"),
    "an epoch missing": (table(epoch=[1, None]), "1: expected a key epoch, a whole number from 1"),
    "text": (table(epoch=[1], lr=["high"]), "0.lr: expected a valid number, found 'high'"),
    "not finite": (table(epoch=[1], **{"test/x/top1": [float("nan")]}), "0: expected a finite number as test/x/top1"),
}


@pytest.mark.parametrize("wrong", HISTORIES)
def test_histories(wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = HISTORIES[wrong]
    file = place(folder, "history.parquet")
    whole = file.read_bytes()
    if wrong == "no stamp":
        file.write_bytes(content)
    else:
        write_history(file, content)
    for command in ("curves", "html") if wrong == "text" else ("curves",):
        assert left_out(command, folder, capsys).startswith(f"{file}: {said}")
    records = TrialRecords(Store(str(file.parent)))
    with pytest.raises(DamagedRecords, match=r"history\.parquet"):  # as a searcher reads it
        records.last_measured("test/leader/top1")
    # Training needs no history.
    (file.parent / "result.json").unlink()
    assert resumed(folder) == 0
    assert file.read_bytes() == whole


def test_a_history_without_what_a_searcher_goes_by(folder: Path) -> None:
    records = TrialRecords(Store(str(trial(folder, "ffsd"))))
    assert records.last_measured("test/leader/top1") == records.result()["last"]["test/leader/top1"]
    with pytest.raises(DamagedRecords, match=r"history\.parquet: expected a column val/leader/top1; it is damaged"):
        records.last_measured("val/leader/top1")


# ---- checkpoints

WITHIN = {"epoch": 2, "steps": 1, "seconds": 1.0, "terms": {}, "accuracy": {}}
CHECKPOINTS: list[tuple[str, Any, str]] = [
    ("", [1], "expected a valid dictionary, found list"),
    ("", {"weights": torch.zeros(3)}, "expected a key method"),
    ("method", {"x": 7}, "method.x: expected an instance of Tensor, found 7"),
    ("method", {}, "expected the state of this trial's networks and optimisers"),
    ("optimisers.sgd", ..., "expected the state of this trial's networks and optimisers"),
    ("optimisers.sgd.param_groups", [{"lr": 0.1}], "optimisers.sgd.param_groups.0: expected a key params"),
    ("optimisers.sgd.param_groups", [], "expected the state of this trial's networks and optimisers"),
    ("progress", ..., "expected a key progress"),
    ("progress.more", 7, "progress.more: Extra inputs are not permitted, found 7"),
    ("progress.rows", [{"epoch": 2}], "expected in progress.rows every epoch from 1, in order"),
    ("progress.rows", [{"epoch": 1}], "expected a key seconds in each of progress.rows"),
    ("progress.rows", [{"epoch": 1, "seconds": 1.0}], "expected the state of this trial's networks and optimisers"),
    ("progress.best", {}, "expected a key student1 in progress.best"),
    ("progress.best_weights", {}, "expected weights in progress.best_weights"),
    ("progress.lineage", [{"epoch": 1}], "progress.lineage.0: expected a key from"),
    ("within", WITHIN, "within.terms: expected a key names"),
]


@pytest.mark.parametrize(("key", "value", "said"), often(CHECKPOINTS[::4], CHECKPOINTS))
def test_checkpoints(key: str, value: Any, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, "checkpoint")
    content = io.BytesIO()
    torch.save(changed(torch.load(file, weights_only=True), key, value), content)
    write_stamped(file, content.getvalue())
    if key == "method" or not key:
        assert left_out("maps", folder, capsys).startswith(f"{file}: {said}")
    own = file.parents[1]
    (own / "result.json").unlink()
    if "networks" not in said and key:  # told by the file alone, so in resuming as in any reading
        with pytest.raises(DamagedRecords) as refused:
            TrialRecords(Store(str(own))).checkpoints.latest()
        assert str(refused.value) == f"{file}: {said}; it is damaged, or from elsewhere"
        return
    assert resumed(folder) == 1
    error = json.loads((own / "error.json").read_text())
    assert error["kind"] == "DamagedRecords"
    assert error["message"] == f"{file}: {said}; it is damaged, or from elsewhere"
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert f"ffsd n=2, seed 0: failed: {error['message']}" in output.out


def test_checkpoints_without_content(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, "checkpoint")
    for write, said in (
        (Path.write_bytes, "expected a stamp in it"),
        (write_stamped, "expected a checkpoint of tensors and plain values"),
    ):
        write(file, b"")
        assert left_out("maps", folder, capsys).startswith(f"{file}: {said}")


def test_another_networks_weights_are_no_teacher(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save

    file, student = trial(folder, "baseline") / "model_last.safetensors", trial(folder, "kd")
    file.unlink()
    file.write_bytes(stamped(save({"x": torch.zeros(3)}, {"stamp": blank(owner_of(file))})))
    shutil.rmtree(student)
    assert resumed(folder) == 1
    assert f"{file}: expected the weights of this trial's network" in capsys.readouterr().out


# ---- resuming


@pytest.mark.parametrize("name", ["job.json", "spec.json", "environment.json", "error.json"])
def test_resuming_writes_anew_what_it_does_not_need(name: str, folder: Path) -> None:
    file = place(folder, name)
    whole = file.read_text().splitlines()
    file.write_text("[]")
    if name not in ("job.json", "error.json"):
        (file.parent / "result.json").unlink()
    assert resumed(folder) == 0
    assert not file.exists() if name == "error.json" else file.read_text().splitlines()[2:4] == whole[2:4]


def test_a_trial_with_a_damaged_result_is_trained_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, "result.json")
    whole = file.read_bytes()
    write_json(file, {})
    assert again(folder) == 2
    assert "(2 of 3 trials completed)" in capsys.readouterr().err
    assert resumed(folder) == 0
    said = f"To be trained again: {file}: expected a key members; it is damaged, or from elsewhere\n"
    assert said in capsys.readouterr().out
    assert file.read_bytes() == whole


def test_as_a_trial_stands_is_no_result_where_that_is_damaged(folder: Path) -> None:
    own = trial(folder, "ffsd")
    (own / "result.json").rename(own / "provisional_result.json")
    records = TrialRecords(Store(str(own)))
    (own / "provisional_result.json").unlink()
    write_json(own / "provisional_result.json", {"last": {"epoch": 1}})
    with pytest.raises(DamagedRecords, match=r"provisional_result\.json: expected a key members"):
        records.stop()
    (own / "provisional_result.json").unlink()
    with pytest.raises(MissingRecords, match=r"provisional_result\.json: cannot be read: there is no such file"):
        records.stop()
    assert records.state() == "unfinished"


# ---- other runs' results


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def of_another_shape(file: Path) -> None:
    file.write_text('{"ended": "completed"}')


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", of_another_shape),
        ("result.json", emptied),
        ("environment.json", of_another_shape),
        ("history.parquet", of_another_shape),
        ("history.parquet", Path.unlink),
        ("model_best.safetensors", emptied),
        ("model_last.safetensors", emptied),
        ("model_last.safetensors", Path.unlink),
    ],
)
def test_a_damaged_trial_of_another_run_is_left_there(name: str, damage: Callable[[Path], None], folder: Path) -> None:
    file = place(folder, name)
    damage(file)
    (folder / "runs" / "a note").write_text("not a run")
    mine = RunRecords(Store(str(folder / "runs" / "mine")))
    identities = list(RunRecords.open(str(folder / "runs" / "small")).trials())
    said: list[str] = []
    reused: Mapping[str, str] = mine.reuse(identities, said.append)
    assert reused == dict.fromkeys([identity for identity in identities if identity != file.parent.name], "small")
    assert len(said) == 1
    assert said[0].startswith(f"{file}: ")
    assert mine.trial(file.parent.name).store.names() == []


def test_a_job_goes_on_where_another_runs_trial_is_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place(folder, "result.json")
    write_json(file, {})
    assert again(folder, "--set", "name=other") == 0
    output = capsys.readouterr()
    assert f"Not reused: {file}: expected a key members; it is damaged, or from elsewhere\n" in output.out
    assert "Reused from run small: 2 of 3 trials." in output.out
    assert output.err == ""
