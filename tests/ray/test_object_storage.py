"""Records and images in object storage, on a real S3 server; storage that fails for a while, and a full disk."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from pyarrow import fs

from ffsd_ray import load_model, storage
from ffsd_ray.data import Dataset, load
from ffsd_ray.errors import DataError, RecordsError, StorageError, StorageFull
from ffsd_ray.records.checkpoint_folder import CheckpointFolder
from ffsd_ray.records.store import Store
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.run import main

from helpers.buckets import class_folders, trials, upload
from helpers.commands import wait_for
from helpers.comparison import assert_same_end
from helpers.holding import Hold
from helpers.images import assert_same, data_settings, images_of, png, write_parquet
from helpers.ports import free_port
from helpers.s3_server import SECRET, Server, serving
from helpers.small_run import small_job
from helpers.workers import undisturbed

JOB = small_job(
    "train: {epochs: 2, batch_size: 32, lr: 0.05, steps_per_epoch: 2}",
    "scale: {threads: 1}",
    "search:",
    "  grid:",
    "    method: [{name: baseline}, {name: ffsd}]",
)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def command(job: Path, storage: str, *settings: str) -> list[str]:
    arguments = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "ffsd_ray.run", str(job), "--storage", storage, *arguments]


def run(job: Path, storage: str, *settings: str, resume: bool = False) -> subprocess.CompletedProcess[str]:
    arguments = [*command(job, storage, *settings), *(["--resume"] if resume else [])]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


# ---- a store


def test_a_store_in_a_bucket(s3: Server) -> None:
    run = Store("s3://bucket/some where/run/")
    assert run.names() == []
    assert not run.exists("job.json")
    trial = run.child("trials").child("one")
    trial.write("a", b"1")
    trial.write("a", b"22")
    trial.write_json("b.json", {"µ": 1})
    trial.write("large", bytes(12 << 20))  # more than one part of an upload
    assert trial.names() == ["a", "b.json", "large"]
    assert run.names() == ["trials"]
    assert trial.read("a") == b"22"
    assert trial.parsed("b.json", json.loads, "JSON") == {"µ": 1}
    assert trial.read("large") == bytes(12 << 20)
    assert trial.exists("a")
    assert not trial.exists("c")
    assert not run.exists("trials")
    trial.delete("large")
    assert set(s3.objects("some where")) == {"run/trials/one/a", "run/trials/one/b.json"}
    with pytest.raises(FileNotFoundError):
        trial.read("large")
    assert trial.parent.parent.location == run.location
    assert (run.parent.name, run.parent.parent.name, run.parent.parent.parent.name) == ("some where", *["bucket"] * 2)


def test_a_uri_may_name_the_server(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    store = Store(f"s3://bucket/query?endpoint_override={endpoint}&region=us-east-1").child("run")
    store.write("a", b"1")
    assert s3.objects("query") == {"run/a": b"1"}
    assert (store.name, store.parent.name, store.parent.names()) == ("run", "query", ["run"])


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:hidden@bucket/runs",
        "s3://hidden@bucket/runs",
        "s3://bucket/runs?secret_key=hidden",
        "s3://bucket/runs?endpoint_override=http://KEY:hidden@host",
        "abfs://:hidden@account/runs",
        "gs://hidden@bucket/runs",
        "nowhere://KEY:hidden@bucket/runs",
    ],
)
def test_a_uri_with_credentials_is_refused_and_not_shown(uri: str, job: Path) -> None:
    with pytest.raises(RecordsError) as refused:
        Store(uri)
    assert "hidden" not in str(refused.value)
    assert "://" in str(refused.value)
    with pytest.raises(DataError, match=r"data\.root") as refused_data:
        load(data_settings("image_folder", root=uri, cache=str(job.parent / "cache")))
    assert "hidden" not in str(refused_data.value)


@pytest.mark.thorough
def test_what_a_server_refuses_is_one_message(s3: Server, job: Path) -> None:
    with pytest.raises(StorageError, match=r"s3://elsewhere/runs/a: cannot be written: .*bucket does not exist"):
        Store("s3://elsewhere/runs").write("a", b"1")
    done = run(job, "s3://elsewhere/runs", "context=local")
    assert done.returncode == 1
    assert "s3://elsewhere/runs/small/driver.json: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


# ---- storage that fails for a while


def test_a_server_that_comes_back_gets_the_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever connects is turned away, until a server is started there while the write goes on trying."""
    moto = pytest.importorskip("moto.server", reason="the S3 server of the tests (moto[server]) is not installed")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in (("ACCESS_KEY_ID", "someone"), ("SECRET_ACCESS_KEY", SECRET), ("ENDPOINT_URL", endpoint)):
        monkeypatch.setenv(f"AWS_{name}", value)
    first, second = moto.ThreadedMotoServer("127.0.0.1", 0), moto.ThreadedMotoServer("127.0.0.1", port)
    first.start()  # both keep their objects in this process
    try:
        made = fs.S3FileSystem(
            region="us-east-1",
            endpoint_override="http://{}:{}".format(*first.get_host_and_port()),
            allow_bucket_creation=True,
        )
        made.create_dir("back")
    finally:
        first.stop()
    store = Store(f"s3://back/runs?endpoint_override={endpoint}&region=us-east-1")
    writing = threading.Thread(target=store.write, args=("a", b"1"))
    with socket.create_server(("127.0.0.1", port)) as turning_away:
        writing.start()
        for _ in range(3):
            turning_away.accept()[0].close()
    assert writing.is_alive()
    second.start()
    try:
        writing.join()
        assert store.read("a") == b"1"
    finally:
        second.stop()


def test_a_server_that_stays_away_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = Store("s3://away/runs?endpoint_override=http://127.0.0.1:9&region=us-east-1")
    for act, what in (
        (lambda: store.write("a", b"1"), "a: cannot be written"),
        (lambda: store.read("a"), "a: cannot be read"),
        (lambda: store.exists("a"), "a: cannot be looked for"),
        (store.names, "cannot be listed"),
    ):
        with pytest.raises(StorageError, match=f"s3://away/runs.*{what}.*Could not connect") as away:
            act()
        assert "endpoint_override" not in str(away.value)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.thorough
def test_an_outage_while_training(s3: Server, job: Path, hold: Hold) -> None:
    settings = ["search.grid={}", "method.name=ffsd"]
    held = hold.at("ffsd", epoch=2)
    process = subprocess.Popen(
        command(job, "s3://bucket/outage", *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(held, "the second epoch")
    with s3.silent():
        hold.release()
        wait_for(lambda: s3.unanswered() >= 3, "a request that is tried again and again")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    [records] = trials("s3://bucket/outage/small").values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no filesystem can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "100m")


def trying(patch: pytest.MonkeyPatch) -> Counter[int | None]:
    """Counts by thread how often it waits for storage from now on; each time for a moment only."""
    tries = Counter[int | None]()

    def sleep(seconds: float) -> None:
        tries[threading.get_ident()] += 1
        time.sleep(0.05)

    patch.setattr(storage, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return tries


def remount(folder: Path, mode: str) -> None:
    """`ro`: as a kernel does on its own when a disk fails. Refused while a file is being written, so tried again."""
    wait_for(
        lambda: not subprocess.run(["mount", "-o", f"remount,{mode}", folder], capture_output=True).returncode,
        f"a moment for {mode}",
    )


def test_a_local_filesystem_that_comes_back_gets_the_write(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = trying(monkeypatch)
    store = Store(str(disk / "runs"))
    store.write("a", b"1")
    remount(disk, "ro")
    acts = [lambda: store.write("a", b"22"), lambda: store.child("new").write("b", b"3"), lambda: store.delete("c")]
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(tries[thread.ident] >= 3 for thread in threads[:2]), "two writes that are tried again")
    assert store.read("a") == b"1", "what can be read is read"
    remount(disk, "rw")
    for thread in threads:
        thread.join()
    assert store.read("a") == b"22"
    assert store.child("new").read("b") == b"3"
    assert store.names() == ["a", "new"], "and nothing half-written"


def test_a_local_filesystem_that_stays_away_is_one_message(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 1)
    store = Store(str(disk / "runs"))
    store.write("a", b"1")
    remount(disk, "ro")
    with pytest.raises(StorageError, match=r"runs/a: cannot be written: Read-only file system$"):
        store.write("a", b"22")
    with pytest.raises(StorageError, match=r"runs/a: cannot be deleted: .*Read-only file system"):
        store.delete("a")


def test_what_does_not_pass_is_not_waited_for(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a folder that is a file: else this test would not end."""
    monkeypatch.setattr(storage, "PATIENCE", 10**6)
    store = Store(str(small_disk))
    with pytest.raises(StorageFull, match="No space left on device"):
        store.write("a", bytes(6 << 20))
    store.write("a", b"1")
    with pytest.raises(StorageError, match=r"a/b: cannot be written: (Not a directory|File exists)"):
        store.child("a").write("b", b"1")


def test_a_local_filesystem_fails_while_training(disk: Path, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before the second checkpoint is written, and is back after three tries."""
    tries = trying(monkeypatch)
    write, sleep = CheckpointFolder.write, time.sleep

    def goes(self: CheckpointFolder, epoch: int, *arguments: Any, **options: Any) -> None:
        if epoch == 2:
            remount(disk, "ro")
        write(self, epoch, *arguments, **options)

    def comes_back(seconds: float) -> None:
        sleep(seconds)
        if tries.total() == 3:
            remount(disk, "rw")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "write", goes)
        patch.setattr(time, "sleep", comes_back)
        settings = ["train.epochs=3", "search.grid={}", "method.name=ffsd", "context=local"]
        assert main(command(job, str(disk / "runs"), *settings)[3:]) == 0
    assert tries.total() == 3
    [records] = trials(str(disk / "runs" / "small")).values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


# ---- a whole job


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.thorough
def test_a_job_in_a_bucket(
    s3: Server, job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_logs = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray makes sockets below it
    monkeypatch.setenv("RAY_TMPDIR", str(ray_logs))
    before = s3.requests()
    done = run(job, "s3://bucket/runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert s3.requests() - before < 200, "most of them for records"
    assert "Records: s3://bucket/runs/small" in done.stdout
    found = trials("s3://bucket/runs/small")
    for method, records in found.items():
        assert_same_end(records, undisturbed(records, job.parent / "whole" / method))

    assert report(["s3://bucket/runs/small"]) == 0
    assert "Leader" in capsys.readouterr().out
    leader = job.parent / "leader.safetensors"
    leader.write_bytes(found["ffsd"].store.read("model_best.safetensors"))
    assert load_model(leader).card.member == "leader"

    again = run(job, "s3://bucket/runs", "name=again")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Reused from run small: 2 of 2 trials" in again.stdout
    assert trials("s3://bucket/runs/again")["ffsd"].result()["reused"] == "small"

    texts = [done.stdout, done.stderr, *(str(content) for content in s3.objects().values())]
    texts += [path.read_text(errors="replace") for path in ray_logs.rglob("*") if path.is_file()]
    assert len(texts) > 40
    assert not [text for text in texts if SECRET in text]
    shutil.rmtree(ray_logs)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.thorough
def test_killed_and_resumed(s3: Server, job: Path, hold: Hold) -> None:
    """Every process of the run is gone at once, as a machine is; the rest is trained from what the bucket holds."""
    settings = ["search.grid={}", "method.name=ffsd"]
    held = hold.at("ffsd", epoch=2)
    process = subprocess.Popen(
        command(job, "s3://bucket/killed", *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(held, "the second epoch")
    for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        victim.kill()
    process.wait()
    hold.release()
    resumed = run(job, "s3://bucket/killed", *settings, resume=True)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "goes on after epoch 1" in resumed.stdout
    [records] = trials("s3://bucket/killed/small").values()
    assert_same_end(records, undisturbed(records, job.parent / "whole"))


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """With room for one checkpoint of ResNet-20 and not for two."""
    yield from mounted(tmp_path / "disk", "5m")


@pytest.mark.thorough
@pytest.mark.parametrize("context", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_a_full_disk(context: str, small_disk: Path, job: Path) -> None:
    """On Ray the worker that does not write waits for the one that has failed, and must not wait for ever."""
    settings = ["search.grid={}", "method.name=baseline", f"context={context}"]
    settings += ["scale.workers=2"] if context == "ray" else []
    full = run(job, str(small_disk / "runs"), *settings)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    [records] = trials(str(small_disk / "runs" / "small")).values()
    assert records.state() == "failed"
    error = records.error()
    assert error["kind"] == "StorageFull"
    checkpoint = records.store.location + "/checkpoints/epoch-000002.pt"
    assert error["message"].startswith(f"{checkpoint}: cannot be written: No space left on device: ")
    assert f"MB free on the filesystem at {small_disk}" in error["message"]
    assert records.store.child("checkpoints").names() == ["epoch-000001.pt"], "whole, and nothing half-written"
    state = records.checkpoints.latest()
    assert state is not None
    assert len(state["progress"]["rows"]) == 1
    assert full.stdout.count("epoch 1/2") == 1, "tried once"

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    resumed = run(job, str(small_disk / "runs"), *settings, resume=True)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "goes on after epoch 1" in resumed.stdout


# ---- images


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data_settings("digits", image_size=12).read(progress=False)


def test_a_folder_of_images_in_a_bucket(s3: Server, digits: Dataset, tmp_path: Path) -> None:
    class_folders(digits, tmp_path / "pets")
    upload(s3, tmp_path / "pets", "pets")
    cache: dict[str, Any] = {"image_size": 12, "cache": str(tmp_path / "cache")}
    remote = data_settings("image_folder", root="s3://bucket/pets/", **cache)
    locally = load(data_settings("image_folder", root=str(tmp_path / "pets"), **cache))
    assert_same(load(remote), locally)
    before = s3.requests()
    assert_same(load(remote), locally)
    assert s3.requests() - before <= 2, "only listed"

    # what changes in the bucket changes here, to the last file and folder
    for index in range(3):
        s3.put(f"pets/train/odd/{index}.png", png(images_of(digits.train)[index]))
        s3.put(f"pets/test/odd/{index}.png", png(images_of(digits.test)[index]))
    s3.put("pets/train/odd/0.png", png(images_of(digits.train)[50]))
    more = load(remote)
    assert (more.classes, len(more.train)) == (("class0", "class1", "odd"), 43)
    assert any(torch.equal(image, images_of(digits.train)[50]) for image in images_of(more.train))
    for index in range(3):
        for part in ("train", "test"):
            s3.filesystem.delete_file(f"bucket/pets/{part}/odd/{index}.png")
    assert_same(load(remote), locally)

    s3.put("pets/train/class0/0.png", b"no picture")
    with pytest.raises(DataError, match=r"^s3://bucket/pets/train/class0/0\.png: expected a whole picture"):
        load(remote)


def test_parquet_files_in_a_bucket(s3: Server, digits: Dataset, tmp_path: Path) -> None:
    for name, part, split in (
        ("train-0", slice(0, 20), digits.train),
        ("train-1", slice(20, 40), digits.train),
        ("test-0", slice(0, 20), digits.test),
    ):
        contents = [png(image) for image in images_of(split)[part]]
        write_parquet(tmp_path / f"{name}.parquet", contents, split.labels[part].tolist())
        s3.put(f"tables/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
    cache: dict[str, Any] = {"image_size": 12, "cache": str(tmp_path / "cache")}
    where = {"train": "train-*.parquet", "test": "test-0.parquet"}
    locally = data_settings("parquet", **{key: str(tmp_path / name) for key, name in where.items()}, **cache)
    remote = data_settings("parquet", **{key: f"s3://bucket/tables/{name}" for key, name in where.items()}, **cache)
    assert_same(load(remote), load(locally))
    streamed = load(remote.model_copy(update={"stream": True, "loader_processes": 0}))
    assert len(streamed.train) == 40
    [(pixels, labels)] = streamed.test.unaugmented([slice(0, 20)])
    assert pixels.shape == (20, 3, 12, 12)
    assert torch.equal(labels, load(locally).test.labels)

    s3.put("tables/train-1.parquet", b"no table")
    with pytest.raises(DataError, match=r"^s3://bucket/tables/train-1\.parquet: expected a Parquet file"):
        load(remote)


def test_images_that_are_not_there(s3: Server, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    with pytest.raises(DataError, match=r"data\.root: s3://bucket/none: no such folder"):
        load(data_settings("image_folder", root="s3://bucket/none", cache=cache))
    with pytest.raises(DataError, match=r"data\.train: s3://bucket/none/\*\.parquet: no such file"):
        load(
            data_settings("parquet", train="s3://bucket/none/*.parquet", test="s3://bucket/none/t.parquet", cache=cache)
        )


def test_an_objects_name_is_no_way_out_of_the_cache(s3: Server, tmp_path: Path) -> None:
    client = pytest.importorskip("boto3").client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket="bucket", Key="trap/train/../../../out.png", Body=b"1")
    with pytest.raises(DataError, match=r"holds an object named 'train/\.\./"):
        load(data_settings("image_folder", root="s3://bucket/trap", cache=str(tmp_path / "cache")))
    assert not list(tmp_path.rglob("out.png"))
