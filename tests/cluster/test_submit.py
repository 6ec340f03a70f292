"""`ray job submit --working-dir .` to nodes that have folders of their own, as machines do."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.utils import get_ray_address_file, write_ray_address
from ray.cluster_utils import Cluster

from ffsd_ray.records.run import RunRecords

from helpers.submitted import Submitted, copied

pytest.importorskip("aiohttp_cors", reason="needs ray[default], which takes jobs")

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OPTIONS = ["scale={threads: 1, workers: 2}", "method={name: ffsd}", "search.grid={}", "backbone.name=only_uploaded"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Path]]]:
    """The dashboard's address, and the folders of a head and of two nodes of one CPU."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as root:  # sockets' paths must be short
        folders = [Path(root, name) for name in ("head", "a", "b")]
        head = {"temp_dir": str(folders[0]), "num_cpus": 0, "include_dashboard": True, "object_store_memory": 10**8}
        Path(get_ray_address_file(None)).parent.mkdir(exist_ok=True)  # which Ray makes only where it has its files
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            write_ray_address(cluster.address, str(folders[0]))  # as `ray start` does: where a submitted job looks
            for folder in folders[1:]:
                cluster.add_node(num_cpus=1, temp_dir=str(folder), object_store_memory=10**8)
            yield f"http://{cluster.webui_url}", folders
        finally:
            cluster.shutdown()


def test_trains_from_what_was_submitted(cluster: tuple[str, list[Path]], tmp_path: Path) -> None:
    """No node has the package, and the folder that it was submitted from is gone."""
    address, folders = cluster
    project = copied(tmp_path / "project")
    settings = [word for option in OPTIONS for word in ("--set", option)]
    run = ["jobs/quickstart.yaml", "--smoke", "--storage", str(tmp_path / "runs"), *settings]
    job = Submitted(project, address, *run)
    shutil.rmtree(project)
    job.succeeded()
    records = RunRecords.open(str(tmp_path / "runs" / "quickstart-smoke"))
    [trial] = [records.trial(identity) for identity in records.trials()]
    assert trial.state() == "completed"
    assert trial.spec()["backbone"]["name"] == "only_uploaded"
    assert trial.environment()["device"]["workers"] == 2
    assert trial.environment()["revision"] is None, "not from a checkout"
    unpacked = "session_latest/runtime_resources/working_dir_files/*/ffsd_ray"
    assert all(list(folder.glob(unpacked)) for folder in folders), "each node has its own"
