"""What TensorBoard, Weights & Biases and MLflow hold of a run: read back from what real runs left."""

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboardX.proto.event_pb2 import Event

from ffsd_ray.config.load import load_job
from ffsd_ray.config.tracking import WatchSettings
from ffsd_ray.errors import JobError, UserError
from ffsd_ray.launch.tracking.async_logger import Watched
from ffsd_ray.launch.tracking.setup import check_services
from ffsd_ray.launch.tracking.tensorboard import TensorBoard
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow

from helpers.commands import command, run, wait_for
from helpers.holding import Hold
from helpers.small_run import small_job

JOB = small_job(
    "method: {name: baseline}",
    "train: {epochs: 2, batch_size: 16, lr: 0.05, steps_per_epoch: 2}",
    "scale: {threads: 1}",
)
LABEL = "baseline, seed 0"
EPOCHS = 4

needs_wandb = pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
needs_mlflow = pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")


def measurements(row: HistoryRow) -> HistoryRow:
    """Of an epoch, with the accuracy of the series that stands for the method under a name that all methods have."""
    primary = {
        f"{split}/primary/top1": row[key] for split in ("test", "val") if (key := f"{split}/student/top1") in row
    }
    return {key: value for key, value in row.items() if key != "epoch"} | primary


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each tag in a folder of event files, as TensorBoard shows them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):  # TFRecord: length, its checksum, the event, its checksum
            (size,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            if event.session_log.status == event.session_log.START:
                found = {tag: [point for point in points if point[0] < event.step] for tag, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def assert_holds(folder: Path, history: list[HistoryRow]) -> None:
    found = scalars(folder)
    assert found.keys() == {key for row in history for key in measurements(row)}
    for tag, points in found.items():
        assert [step for step, _ in points] == [row["epoch"] for row in history], tag
        values = [measurements(row)[tag] for row in history]
        assert [value for _, value in points] == pytest.approx(values, rel=1e-6), tag


class Run(NamedTuple):
    folder: Path
    trial: TrialRecords
    mlflow: str


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial that was interrupted and resumed, watched by whatever is installed."""
    folder = tmp_path_factory.mktemp("watched")
    mlflow = f"sqlite:///{folder}/mlflow.db"
    watch = {"wandb": "{project: students}", "mlflow": f"{{experiment: students, tracking_uri: '{mlflow}'}}"}
    asked = [f"  {service}: {said}\n" for service, said in watch.items() if importlib.util.find_spec(service)]
    job = folder / "job.yaml"
    job.write_text(JOB + ("watch:\n" if asked else "") + "".join(asked))
    settings = ["--set", f"train.epochs={EPOCHS}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        hold = Hold(folder, patch)
        held = hold.at("baseline", epoch=3)
        process = subprocess.Popen(command(job, *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for(held, "the third epoch")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
        hold.release()
        assert process.returncode == 130, output
        again = run(job, *settings, "--resume")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "goes on after epoch 2" in again.stdout
        assert "none the worse" not in again.stdout, "a service failed"
    records = RunRecords.open(str(folder / "runs" / "small"))
    [trial] = [records.trial(identity) for identity in records.trials()]
    assert [row["epoch"] for row in trial.history()] == list(range(1, EPOCHS + 1))
    return Run(folder / "runs" / "small", trial, mlflow)


@pytest.mark.ray
@pytest.mark.slow
def test_tensorboard_has_one_curve_under_the_label(resumed: Run) -> None:
    [folder] = (resumed.folder / "tensorboard").iterdir()
    assert folder.name == f"baseline_seed_0-{resumed.trial.store.name[:6]}"
    assert len(list(folder.iterdir())) == 2, "one file before, one after"
    assert_holds(folder, resumed.trial.history())
    assert list(resumed.folder.rglob("events.out.tfevents*")) == list(folder.iterdir()), "none beside Tune's files"


def wandb_records(file: Path) -> Iterator[Any]:
    """What an offline run's file holds: records in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, content, at, record = 32768, file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""


@pytest.mark.ray
@pytest.mark.slow
@needs_wandb
def test_wandb_has_every_epoch(resumed: Run) -> None:
    files = sorted((resumed.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1, "the resumed trial goes on under its id"
    records = list(wandb_records(files[-1]))
    [about] = [record.run for record in records if record.HasField("run")]
    assert (about.project, about.run_group, about.display_name) == ("students", "small", LABEL)
    assert list(about.tags) == ["small", "seed 0", LABEL]
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    del config["_wandb"]
    assert config == resumed.trial.spec()
    logged = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [row["_step"] for row in logged] == list(range(1, EPOCHS + 1))
    for found, row in zip(logged, resumed.trial.history(), strict=True):
        assert {key: found[key] for key in measurements(row)} == measurements(row)


@pytest.mark.ray
@pytest.mark.slow
@needs_mlflow
def test_mlflow_has_every_epoch_once(resumed: Run) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(resumed.mlflow)
    experiment = client.get_experiment_by_name("students")
    assert experiment is not None
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == (LABEL, "FINISHED")
    assert found.data.tags.items() >= {"job": "small", "seed": "0", "label": LABEL}.items()
    assert found.data.params["train/epochs"] == str(EPOCHS)
    assert {key.partition("/")[0] for key in found.data.params} == set(resumed.trial.spec())
    history = resumed.trial.history()
    for key in measurements(history[0]):
        points = sorted((point.step, point.value) for point in client.get_metric_history(found.info.run_id, key))
        assert points == [(row["epoch"], measurements(row)[key]) for row in history], key


@pytest.mark.ray
@pytest.mark.slow
@needs_wandb
@needs_mlflow
def test_services_that_are_away_leave_the_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", nobody)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    job = tmp_path / "job.yaml"
    job.write_text(
        JOB + f"watch: {{wandb: {{project: students}}, mlflow: {{experiment: students, tracking_uri: '{nobody}'}}}}\n"
    )
    done = run(job, "--set", "scale.launcher=trial")
    assert done.returncode == 0, done.stdout + done.stderr
    for service in ("Weights & Biases", "MLflow"):
        [line] = [line for line in done.stdout.splitlines() if f"{service}: " in line]
        assert line.endswith("Training is none the worse; the records have everything.")
    records = RunRecords.open(str(tmp_path / "runs" / "small"))
    [trial] = [records.trial(identity) for identity in records.trials()]
    assert trial.state() == "completed"
    [folder] = (tmp_path / "runs" / "small" / "tensorboard").iterdir()
    assert_holds(folder, trial.history())


def test_tensorboard_on_a_store_with_a_uri(tmp_path: Path) -> None:
    """As on S3 or GCS: files are written whole, by way of pyarrow."""
    store = Store(f"file://{tmp_path}")
    history: list[HistoryRow] = [
        {"epoch": epoch, "lr": 0.1 / epoch, "test/student/top1": 10.0 * epoch} for epoch in (1, 2)
    ]
    label = "λ=1e-05, data.train=a/b*.parquet, seed 0"
    trial = Watched({}, "job", label, "0123456789abcdef", TrialRecords(store), str(tmp_path), "student")
    watcher = TensorBoard(store)
    watcher.setup()
    watcher.log_trial_start(trial)
    for row in history:
        epoch = int(row["epoch"])
        watcher.log_trial_result(epoch, trial, {**measurements(row), "training_iteration": epoch})
    watcher.on_experiment_end([])
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert folder.name == "_=1e-05_data.train=a_b_.parquet_seed_0-012345"
    assert_holds(folder, history)


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ("{wandb: {project: p, api_key: abc}}", "watch.wandb.api_key = "),
        ("{mlflow: {experiment: e, tracking_token: abc}}", "watch.mlflow.tracking_token = "),
        ("{mlflow: {experiment: e, tracking_uri: 'https://me:secret@host'}}", "Holds a user, password or key"),
        ("{mlflow: {}}", "watch.mlflow.experiment"),
    ],
)
def test_what_a_job_file_may_not_say(tmp_path: Path, watch: str, said: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"{JOB}watch: {watch}\n")
    with pytest.raises(JobError) as raised:
        load_job(job)
    assert said in str(raised.value)
    assert f"{job}:7:" in str(raised.value)


def test_a_local_job_has_no_services(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"{JOB}watch: {{mlflow: {{experiment: e}}}}\n")
    load_job(job)
    with pytest.raises(JobError, match=r"watch\.mlflow\n  Works through Ray only"):
        load_job(job, ["context=local"])


def test_services_are_no_part_of_a_trial(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    plain = load_job(job).trials
    job.write_text(f"{JOB}watch: {{wandb: {{project: p}}, mlflow: {{experiment: e}}}}\n")
    assert load_job(job).trials == plain


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setitem(sys.modules, service, None)
    settings = {"wandb": {"project": "p"}, "mlflow": {"experiment": "e"}}
    watch = WatchSettings.model_validate({service: settings[service]})
    with pytest.raises(UserError, match=rf"watch\.{service}: .*ffsd-ray\[{service}\]"):
        check_services(watch)


@pytest.mark.slow
@needs_wandb
def test_a_missing_key_is_told_before_anything_runs(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"{JOB}watch: {{wandb: {{project: p}}}}\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | {
        "HOME": str(tmp_path)
    }
    done = subprocess.run(command(job), capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "watch.wandb: no key found. Set WANDB_API_KEY" in done.stderr
    assert not (tmp_path / "runs").exists()
