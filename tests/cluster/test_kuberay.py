"""What a head in a pod of KubeRay reads of its cluster: a real head, with a pod's files and variables, and a real HTTPS
server that answers as Kubernetes does."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

from ffsd_ray.launch.cluster import connection as cluster
from ffsd_ray.launch.cluster.capacity import ResourceRequest
from ffsd_ray.launch.cluster.connection import connected

from helpers.commands import wait_for
from helpers.paths import PROJECT
from helpers.ports import answers, free_port
from helpers.small_run import small_job

pytestmark = [pytest.mark.ray, pytest.mark.thorough]

RESOURCE = yaml.safe_load((PROJECT / "cluster" / "kuberay.yaml").read_text())
JOB = small_job(
    "method: {name: baseline}",
    "scale: {gpus_per_worker: 2}",
)
#: As Kubernetes' API server has it.
RESOURCE["metadata"]["namespace"] = "training"
TOKEN = "of the head's service account"
SECRETS = "/run/secrets/kubernetes.io/serviceaccount"


class Kubernetes(http.server.BaseHTTPRequestHandler):
    """An API server with one RayCluster."""

    resource: dict[str, Any]
    allowed = True

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {})
        elif self.path != "/apis/ray.io/v1/namespaces/training/rayclusters/ffsd-ray":
            self.answer(404, {})
        elif not Kubernetes.allowed:
            self.answer(403, {"kind": "Status", "reason": "Forbidden"})
        else:
            self.answer(200, Kubernetes.resource)

    def answer(self, code: int, content: dict[str, Any]) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Kubernetes mounts in a pod, and the API server's key."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("training")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    made = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.crt"), "-subj", "/CN=kubernetes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def api(secrets: Path) -> Iterator[int]:
    """The port of the API server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(secrets / "ca.crt", secrets / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def pod(secrets: Path, api: int) -> Iterator[str]:
    """The address of a head in a pod: its own /run, and KubeRay's variables."""
    folder = tempfile.mkdtemp(prefix="ray")  # sockets' paths must be short
    port = free_port()
    mounts = f"mount -t tmpfs tmpfs /run && mkdir -p {SECRETS} && cp {secrets}/* {SECRETS}"
    start = f"{sys.executable} -m ray.scripts.scripts start --head --block --num-cpus=0 --include-dashboard=false"
    options = f"--port={port} --temp-dir={folder} --object-store-memory=100000000"
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "KUBERAY_GEN_RAY_START_CMD": "ray start --head",
        "RAY_CLUSTER_NAME": "ffsd-ray",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT_HTTPS": str(api),
    }
    head = psutil.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {start} {options}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"{ray.util.get_node_ip_address()}:{port}"
    wait_for(lambda: answers(address) or head.poll() is not None, "a head that answers")
    assert head.poll() is None, "the head did not start"
    try:
        yield address
    finally:
        processes = [head, *head.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def head(secrets: Path, api: int) -> Iterator[str]:
    alone = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True
    )
    if alone.returncode:
        pytest.skip(f"no mounts of a process's own here: {alone.stderr.strip()}")
    with pod(secrets, api) as address:
        yield address


@pytest.fixture(autouse=True)
def environment(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head)
    monkeypatch.setattr(cluster, "PATIENCE", 0)
    monkeypatch.setattr(Kubernetes, "resource", RESOURCE, raising=False)


def refused(*trials: ResourceRequest) -> list[str]:
    """Why the cluster can never hold a trial, "" where it can; nodes get no time to appear."""
    with connected(trials, verbose=False) as connection:
        why = connection.refused({str(trial): trial for trial in trials})
        return [why.get(str(trial), "") for trial in trials]


ONE_GPU = {"CPU": 4, "GPU": 1}


def test_the_autoscaler_may_start_what_the_resource_says() -> None:
    fits, too_many, too_large = refused(
        ResourceRequest(8, ONE_GPU), ResourceRequest(9, ONE_GPU), ResourceRequest(1, {"CPU": 1, "GPU": 2})
    )
    assert fits == ""
    assert too_many.startswith("the cluster can never hold it: it asks for 9 workers of 4 CPUs, 1 GPU each")
    assert too_large == (
        "the cluster can never hold it: it asks for 1 CPU, 2 GPUs; the largest is node type spot with 4 CPUs, 1 GPU, "
        "12.0 GiB of memory"
    )


@pytest.mark.slow
def test_nothing_is_refused_where_the_resource_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kubernetes, "allowed", False)
    assert refused(ResourceRequest(1, {"CPU": 1, "GPU": 2})) == [""]


@pytest.mark.slow
def test_a_cluster_without_autoscaling_has_only_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = RESOURCE["spec"] | {"enableInTreeAutoscaling": False}
    monkeypatch.setattr(Kubernetes, "resource", RESOURCE | {"spec": fixed})
    [why] = refused(ResourceRequest(1, ONE_GPU))
    assert "the largest is node " in why
    assert "with 0 CPUs, 0 GPUs" in why


@pytest.mark.slow
def test_a_job_that_asks_for_too_much_ends(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    command = [sys.executable, "-m", "ffsd_ray.run", str(job), "--storage", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "it asks for 1 CPU, 2 GPUs; the largest is node type spot with 4 CPUs, 1 GPU" in done.stdout
