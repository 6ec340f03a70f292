"""`ray job submit --working-dir .` to nodes that have folders of their own, as machines do."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster
from ray.job_submission import JobStatus, JobSubmissionClient

from ffsd_ray.records.run import RunRecords

pytest.importorskip("aiohttp_cors", reason="needs ray[default], which takes jobs")

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROJECT = Path(__file__).resolve().parents[1]
BACKBONE = """\
from ffsd_ray.backbones import cifar_resnet

BUILDERS = {"only_uploaded": cifar_resnet.BUILDERS["resnet20"]}
"""
OPTIONS = ["scale={threads: 1, workers: 2}", "method={name: ffsd}", "search.grid={}", "backbone.name=only_uploaded"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of this one with a backbone more, which no installed package has."""
    copy = tmp_path / "project"
    for name in ("ffsd_ray", "jobs"):
        shutil.copytree(PROJECT / name, copy / name)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(PROJECT / name, copy)
    (copy / "ffsd_ray" / "backbones" / "only_uploaded.py").write_text(BACKBONE)
    return copy


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Path]]]:
    """The dashboard's address, and the folders of a head and of two nodes of one CPU."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as root:  # sockets' paths must be short
        folders = [Path(root, name) for name in ("head", "a", "b")]
        head, *nodes = ({"temp_dir": str(folder), "object_store_memory": 10**8} for folder in folders)
        head |= {"num_cpus": 0, "include_dashboard": True}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            write_ray_address(cluster.address, str(folders[0]))  # as `ray start` does: where a submitted job looks
            for node in nodes:
                cluster.add_node(num_cpus=1, **node)
            yield f"http://{cluster.webui_url}", folders
        finally:
            cluster.shutdown()


def test_trains_from_what_was_submitted(project: Path, cluster: tuple[str, list[Path]], tmp_path: Path) -> None:
    """No node has the package, and the folder that it was submitted from is gone."""
    address, folders = cluster
    client = JobSubmissionClient(address)
    run = ["-m", "ffsd_ray.run", "jobs/quickstart.yaml", "--smoke", "--storage", str(tmp_path / "runs")]
    settings = [word for option in OPTIONS for word in ("--set", option)]
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address, "--no-wait"]
    submit += ["--submission-id", "small", "--working-dir", ".", "--", sys.executable, *run, *settings]
    submitted = subprocess.run(submit, cwd=project, capture_output=True, text=True, check=False)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    shutil.rmtree(project)
    while not (status := client.get_job_status("small")).is_terminal():
        time.sleep(1)
    log = client.get_job_logs("small")
    assert status == JobStatus.SUCCEEDED, log
    records = RunRecords.open(str(tmp_path / "runs" / "quickstart-smoke"))
    [trial] = [records.trial(identity) for identity in records.trials()]
    assert trial.state() == "completed"
    assert trial.spec()["backbone"]["name"] == "only_uploaded"
    assert trial.environment()["device"]["workers"] == 2
    assert trial.environment()["revision"] is None, "not from a checkout"
    unpacked = "session_latest/runtime_resources/working_dir_files/*/ffsd_ray"
    assert all(list(folder.glob(unpacked)) for folder in folders), "each node has its own"
