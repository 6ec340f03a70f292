"""A job on machines that share no files: all that reaches them is what was submitted, and a bucket."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from helpers.buckets import class_folders, trials, upload
from helpers.comparison import assert_same_end
from helpers.images import data_settings, images_of, png, write_parquet
from helpers.machines import RayMachines, ray_machines
from helpers.paths import PROJECT
from helpers.s3_server import Server, serving
from helpers.submitted import Submitted, copied

pytest.importorskip("aiohttp_cors", reason="needs ray[default], which takes jobs")

pytestmark = [pytest.mark.ray, pytest.mark.slow]

JOB = """\
name: small
backbone: {name: only_uploaded}
scale: {threads: 1, gpus_per_worker: 0}
records: {reuse: false}
"""
#: Two workers on two machines, from tables; two trials, each in Tune's own process, from a folder of images.
WORKERS = [
    "data={name: parquet, train: 's3://bucket/tables/train-*.parquet', test: s3://bucket/tables/test.parquet}",
    "method={name: ffsd}",
    "train={epochs: 2, batch_size: 6, lr: 0.02, steps_per_epoch: 200, checkpoint_steps: 20}",
    "scale.workers=2",
]
TRIALS = [
    "data={name: image_folder, root: s3://bucket/pets, image_size: 12}",
    "search={grid: {method: [{name: ffsd}, {name: dml}]}}",
    "train={epochs: 120, batch_size: 6, lr: 0.02}",  # the other one is to be under way still when a machine has come
    "scale.launcher=trial",
]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A bucket with images of both kinds."""
    folder = tmp_path_factory.mktemp("s3")
    digits = data_settings("digits", image_size=12).read(progress=False)
    with serving(folder) as server:
        (folder / "tables").mkdir()
        for name, split in (("train-0", digits.train), ("test", digits.test)):
            contents = [png(image) for image in images_of(split)]
            write_parquet(folder / "tables" / f"{name}.parquet", contents, split.labels.tolist())
        class_folders(digits, folder / "pets")
        for name in ("tables", "pets"):
            upload(server, folder / name, name)
        yield server


@pytest.fixture
def cluster(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayMachines]:
    """A head and two machines."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with ray_machines(tmp_path, s3.environment) as started:
        for _ in range(2):
            started.add()
        started.wait()
        yield started


@pytest.mark.parametrize(
    ("settings", "count", "reference"), [(WORKERS, 1, []), (TRIALS, 2, ["context=local"])], ids=["workers", "trials"]
)
def test_a_machine_goes(
    settings: list[str], count: int, reference: list[str], s3: Server, cluster: RayMachines, tmp_path: Path
) -> None:
    """With another one in its place the run ends as it does here, undisturbed."""
    project = copied(tmp_path / "project")
    (project / "jobs" / "small.yaml").write_text(JOB)
    run = f"{tmp_path.name}/small"
    began = time.time()
    job = Submitted(project, cluster.dashboard, *arguments(f"s3://bucket/{tmp_path.name}", settings))
    job.wait_for(lambda: len(in_the_second_epoch(s3, run)) == count, "every trial in its second epoch")
    print(f"{time.time() - began:.0f} s after the job was submitted every trial is in its second epoch")
    head, *nodes = cluster.machines
    for machine in cluster.machines:
        assert not machine.files(str(PROJECT.relative_to("/")))
        assert machine.files("tmp/ray/session_2*/runtime_resources/working_dir_files/*/ffsd_ray"), "what was submitted"
        assert machine.files("home/.cache/ffsd_ray/copies/*"), "images of its own"
        assert bool(machine.files("tmp/ffsd_ray-small-*/")) == (machine is head)
    moment = time.time()
    nodes[0].end()
    added = cluster.add()
    job.wait_for(lambda: begun_since(s3, run, moment), "workers that go on")
    print(f"trains again {time.time() - moment:.0f} s after a machine went")
    job.succeeded()
    assert added.files("home/.cache/ffsd_ray/copies/*")

    whole = [sys.executable, "-m", "ffsd_ray.run", *arguments(str(tmp_path / "runs"), settings + reference)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(whole, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found, undisturbed = trials(f"s3://bucket/{run}"), trials(str(tmp_path / "runs" / "small"))
    assert len(found) == count
    for method, records in found.items():
        assert_same_end(records, undisturbed[method])


@pytest.mark.parametrize("launcher", ["trainer", "trial"])
def test_a_folder_that_only_the_head_has(launcher: str, cluster: RayMachines, tmp_path: Path) -> None:
    """Records there, that other machines would write into folders of their own: said before anything is trained."""
    project = copied(tmp_path / "project")
    (project / "jobs" / "small.yaml").write_text(JOB)
    settings = ["data={name: digits}", "method={name: ffsd}", f"scale.launcher={launcher}", "failures.max_retries=0"]
    log = Submitted(project, cluster.dashboard, *arguments("/tmp/records", settings)).failed()
    assert "does not have the run's folder" in log
    assert "--storage s3://bucket/folder" in log
    head, *nodes = cluster.machines
    assert head.files("tmp/records/small/trials/*/error.json")
    for machine in nodes:
        assert not machine.files("tmp/records")


def arguments(storage: str, settings: list[str]) -> list[str]:
    return ["jobs/small.yaml", "--storage", storage, *(word for each in settings for word in ("--set", each))]


def in_the_second_epoch(s3: Server, run: str) -> set[str]:
    """The trials that have a checkpoint of it, or of a later one."""
    names = [name.split("/") for name in s3.names(f"{run}/trials") if "/checkpoints/" in name]
    return {trial for trial, _, name in names if name >= "epoch-000002"}


def begun_since(s3: Server, run: str, moment: float) -> bool:
    """Whether workers have begun to train since then: the first thing that they do is to say where."""
    found = s3.filesystem.get_file_info(fs.FileSelector(f"{s3.bucket}/{run}/trials", recursive=True))
    return any(info.base_name == "environment.json" and info.mtime_ns > moment * 1e9 for info in found)
