"""The simulated nodes of local.yaml: raylets on this machine, each with a folder of its own, as machines have."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.experimental.internal_kv import internal_kv_get_gcs_client


class LocalNodes(FakeMultiNodeProvider):
    """Ray's own simulated nodes share the head's folder, in which Ray unpacks a submitted job's working directory.

    Each node unpacks it anew, under a driver that runs in it already.
    """

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        with self.lock:
            for _ in range(count):
                node_id = self._next_hex_node_id()
                self._nodes[node_id] = {"tags": dict(tags), **self._start(node_id, dict(resources))}

    def _start(self, node_id: str, resources: dict[str, float]) -> dict[str, Any]:
        folder = tempfile.mkdtemp(prefix="ray-")
        options = {"num-cpus": resources.pop("CPU", 0), "num-gpus": resources.pop("GPU", 0)}
        options |= {"object-store-memory": resources.pop("object_store_memory", 10**8)}
        if "memory" in resources:
            options["memory"] = int(resources.pop("memory"))
        options |= {"resources": json.dumps(resources), "temp-dir": folder}
        options |= {"address": internal_kv_get_gcs_client().address}
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
            + [f"--{name}={value}" for name, value in options.items()],
            # by which the autoscaler, reading use_node_id_as_ip, knows the node again
            env=os.environ | {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return {"process": process, "folder": folder}

    def _terminate_node(self, node: dict[str, Any]) -> None:
        node["process"].terminate()
        node["process"].wait()
        shutil.rmtree(node["folder"], ignore_errors=True)
