"""All that is used of Ray beside its public interface: what a new version of Ray may change without a word.

The versions of Ray that the package accepts (pyproject.toml) are those that this was tried with.
"""

from typing import Any

from ray._private.state import state as _cluster_state
from ray.air.integrations.wandb import _WandbLoggingActor as WandbLoggingActor
from ray.tune.execution import class_cache as _class_cache

__all__ = [
    "WandbLoggingActor",
    "draining_nodes",
    "keep_secrets_from_runtime_environments",
    "kuberay_autoscaling_config",
]

_SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}


def draining_nodes() -> set[str]:
    """The IDs of the nodes that are about to be taken back.

    Ray Train looks here for its workers' nodes. Public is `ray.train.get_preemption_info`, for those workers only.
    """
    return set(_cluster_state.get_draining_nodes())


def keep_secrets_from_runtime_environments() -> None:
    """Have Tune leave this process's AWS keys out of the trials' runtime environments, which Ray writes to its logs.

    Each node has keys of its own. There is no public setting for it.
    """
    _class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_SECRETS)


def kuberay_autoscaling_config(namespace: str, cluster: str) -> dict[str, Any] | None:
    """What KubeRay's autoscaler makes of a RayCluster resource, in the head's pod; {} where it does not scale.

    Public is the resource alone (Kubernetes' API), not what the autoscaler derives from it.
    """
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    resource = KubernetesHttpApiClient(namespace).get(f"rayclusters/{cluster}")
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return {}
    return _derive_autoscaling_config_from_ray_cr(resource)
