"""What the autoscaler of a running Ray cluster may start, read on the cluster's head."""

import math
import os
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

from ffsd_ray.launch.cluster.capacity import AutoscalerLimits, NodeType
from ffsd_ray.launch.ray_internals import kuberay_autoscaling_config

#: What every head has; a task that asks for a little of it runs there.
ON_HEAD = {"node:__internal_head__": 0.001}
#: What Kubernetes mounts in every pod with a service account, beside the account's token.
_KUBERNETES_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def autoscaler_limits() -> AutoscalerLimits | None:
    """The nodes that the cluster's autoscaler may start; NO_AUTOSCALER without one, None where that cannot be read."""
    read_on_head = ray.remote(num_cpus=0, resources=ON_HEAD)(_autoscaling_config)
    config = ray.get(read_on_head.remote(ray.get_runtime_context().gcs_address))
    if config is None:
        return None
    types = [
        NodeType(name, {key: float(amount) for key, amount in kind.get("resources", {}).items()}, kind["max_workers"])
        for name, kind in config.get("available_node_types", {}).items()
        if kind.get("max_workers")
    ]
    return AutoscalerLimits(types, config.get("max_workers", math.inf))


def _autoscaling_config(gcs_address: str) -> dict[str, Any] | None:
    """Read, on the head, the autoscaler's configuration: {} without one, None where it cannot be read."""
    if "KUBERAY_GEN_RAY_START_CMD" in os.environ:  # in every pod of KubeRay
        return _kuberay_config()
    for process in psutil.process_iter(["cmdline"]):
        options = dict(word.removeprefix("--").partition("=")[::2] for word in process.info["cmdline"] or ())
        if options.get("gcs-address") == gcs_address and "autoscaling-config" in options:
            with open(os.path.expanduser(options["autoscaling-config"])) as file:
                config: dict[str, Any] = yaml.safe_load(file)
                return config
    return {}


def _kuberay_config() -> dict[str, Any] | None:
    """Read, in the head's pod, the configuration that the autoscaler makes of the RayCluster resource.

    KubeRay gives the head's service account the right to read it, with `enableInTreeAutoscaling`; without, Kubernetes
    refuses.
    """
    try:
        namespace = _KUBERNETES_NAMESPACE.read_text()
        return kuberay_autoscaling_config(namespace, os.environ["RAY_CLUSTER_NAME"])
    except (OSError, KeyError, ValueError):  # no right, no answer, or one that this version of Ray does not understand
        return None
