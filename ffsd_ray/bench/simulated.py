"""The simulated cluster of cluster/local.yaml, started for a measurement at ports and in a folder of its own."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from ffsd_ray.errors import ClusterError

CONFIG = Path(__file__).resolve().parents[2] / "cluster" / "local.yaml"
_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_LOG = "head.log"
#: Seconds for a head to answer, and for its processes to end.
_PATIENCE, _STOP = 180, 30


class SimulatedCluster(NamedTuple):
    """The head, and as many nodes as its autoscaler has started."""

    dashboard: str
    environment: dict[str, str]
    folder: Path
    head: "subprocess.Popen[bytes]"

    def nodes(self) -> int:
        """How many there are besides the head, which is asked until it answers.

        Raises:
            ClusterError: it does not.
        """
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.dashboard}/api/v0/nodes", headers=token)
        until = time.monotonic() + _PATIENCE
        while self.head.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
                return sum(node["state"] == "ALIVE" and not node["is_head_node"] for node in nodes)
            time.sleep(0.5)
        raise ClusterError(f"the simulated cluster does not answer:\n{(self.folder / _LOG).read_text()[-2000:]}")

    def submit(self, entrypoint: Sequence[str], log: IO[str]) -> "subprocess.Popen[str]":
        """`ray job submit --working-dir .`, which ends with the job and shows what it prints."""
        options = ["--address", self.dashboard, "--working-dir", "."]
        command = [*_RAY, "job", "submit", *options, "--", *entrypoint]
        return subprocess.Popen(command, env=self.environment, text=True, stdout=log, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def simulated_cluster() -> Iterator[SimulatedCluster]:
    """A cluster that only the holder of its token may use.

    Raises:
        ClusterError: it does not come up, or this is no checkout of the project.
    """
    if not CONFIG.is_file():
        raise ClusterError(f"{CONFIG}: is not there; simulated nodes need a checkout of the project")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        port, dashboard = _free_ports(2)
        environment = os.environ | {
            "PYTHONPATH": str(CONFIG.parent),
            "TMPDIR": folder,  # where nodes make their own
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTOSCALER_FATESHARE_WORKERS": "1",
        }
        options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
        options += ["--num-cpus=0", "--object-store-memory=100000000", f"--autoscaling-config={CONFIG}"]
        with (Path(folder) / _LOG).open("w") as log:
            start = [*_RAY, "start", "--head", "--block", *options]
            head = subprocess.Popen(
                start, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            cluster = SimulatedCluster(f"http://127.0.0.1:{dashboard}", environment, Path(folder), head)
            cluster.nodes()
            yield cluster
        finally:
            _stop(head)


def _stop(head: "subprocess.Popen[bytes]") -> None:
    """End the head's session: its own processes, and the nodes that they have started."""
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(_STOP)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(process.name)) == head.pid:
                os.kill(int(process.name), signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
