"""All that is used of Ray beside its public interface: what a new version of Ray may change without a word.

The versions of Ray that the package accepts (pyproject.toml) are those that this was tried with.
"""

import asyncio
import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import ray
from ray._private.state import state as _cluster_state
from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback as _DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback as _PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.callback import WorkerGroupCallback as _WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController as _TrainController
from ray.train.v2._internal.execution.worker_group import worker_group as _worker_group
from ray.train.v2.torch.torch_trainer import TorchTrainer as _TorchTrainer
from ray.tune.execution import class_cache as _class_cache
from ray.tune.experiment import Experiment, Trial
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.basic_variant import _TrialIterator

if TYPE_CHECKING:
    from ray.air.integrations.wandb import _WandbLoggingActor as WandbLoggingActor

__all__ = [
    "ListedTrials",
    "NamedPlacementGroups",
    "PlacementGroupName",
    "PlainTorchTrainer",
    "TrainRunContext",
    "Trial",
    "WandbLoggingActor",
    "actor_is_dead",
    "draining_nodes",
    "keep_secrets_from_runtime_environments",
    "kuberay_autoscaling_config",
]

_PREFIX = "ffsd_ray"
_SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}


def __getattr__(name: str) -> Any:
    """Import wandb where runs are sent to it alone: it takes a second, and every worker imports this module."""
    if name == "WandbLoggingActor":
        from ray.air.integrations.wandb import _WandbLoggingActor

        return _WandbLoggingActor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def draining_nodes() -> set[str]:
    """The IDs of the nodes that are about to be taken back.

    Ray Train looks here for its workers' nodes. Public is `ray.train.get_preemption_info`, for those workers only.
    """
    return set(_cluster_state.get_draining_nodes())


def actor_is_dead(actor_id: str) -> bool:
    """Whether an actor, by its hexadecimal ID, has ended.

    The public State API answers only where the cluster has a dashboard.
    """
    return bool(_cluster_state.actor_table(actor_id).get("State") == "DEAD")


class PlacementGroupName(NamedTuple):
    """The parts of the name that `NamedPlacementGroups` gives."""

    trial: str
    #: The ID of the actor that made the placement group: the one that runs Ray Train's controller.
    owner: str
    #: Tells the groups of one owner apart.
    unique: str

    def __str__(self) -> str:
        return "/".join((_PREFIX, *self))

    @classmethod
    def parsed(cls, name: str) -> Self | None:
        """The parts of a name; None where another program has given it."""
        prefix, *parts = name.split("/")
        return cls(*parts) if prefix == _PREFIX and len(parts) == 3 else None


class NamedPlacementGroups(_WorkerGroupCallback):
    """Gives the placement group of every worker group of a trial a name that tells who made it.

    Ray Train's own have none. Ray keeps a placement group whose maker was killed until the job ends, and Ray Train's
    cleaner of such groups does nothing where the cluster has no dashboard, or before the workers have started.
    """

    def __init__(self, trial: str) -> None:
        self._trial = trial

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """In the controller's process, around all that it does to start workers."""
        owner = str(ray.get_runtime_context().get_actor_id())
        name = str(PlacementGroupName(self._trial, owner, uuid.uuid4().hex[:8]))
        unnamed = _worker_group.placement_group
        _worker_group.placement_group = functools.partial(unnamed, name=name)
        try:
            yield
        finally:
            _worker_group.placement_group = unnamed


class PlainTorchTrainer(_TorchTrainer):
    """A TorchTrainer without three processes that every trial would wait for: their imports take one to three seconds.

    One would run the controller, which runs in the thread that calls `fit` here. One hands out data sets of Ray Data,
    of which there are none. One removes the placement groups of dead controllers, which `OrphanedPlacementGroups` does
    by `NamedPlacementGroups`.
    """

    def _create_default_callbacks(self) -> list[Any]:
        left_out = _DatasetsCallback | _PlacementGroupCleanerCallback
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, left_out)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        controller = _TrainController(**arguments)
        asyncio.run(controller.run())
        return controller.get_result()


class ListedTrials(BasicVariantGenerator):
    """Hands out trials with the given configurations, in this order.

    Of a grid search over them Tune would copy the whole list for each trial, which grows with their square. What this
    object saves of itself is nothing, for Tune's own state of a run is never read again.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._configs = configs

    def add_configurations(self, experiments: Any) -> None:
        """`experiments`: a list of one, whose configuration is left out of account."""
        [experiment] = experiments
        self._total_samples = len(self._configs)
        self._trial_generator = self._trials(experiment)  # type: ignore[assignment]

    def _trials(self, experiment: Experiment) -> Iterator[Trial]:
        for index, config in enumerate(self._configs):
            spec = experiment.spec | {"config": dict(config)}
            yield from _TrialIterator(self._uuid_prefix, num_samples=1, unresolved_spec=spec, start=index)

    def save_to_dir(self, dirpath: str, session_str: str) -> None: ...  # type: ignore[override]


def keep_secrets_from_runtime_environments() -> None:
    """Have Tune leave this process's AWS keys out of the trials' runtime environments, which Ray writes to its logs.

    Each node has keys of its own. There is no public setting for it.
    """
    _class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_SECRETS)


def kuberay_autoscaling_config(namespace: str, cluster: str) -> dict[str, Any] | None:
    """The autoscaling configuration that KubeRay makes of a RayCluster resource; {} where it does not scale.

    Public is the resource alone (Kubernetes' API), not what the autoscaler derives from it.
    """
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    resource = KubernetesHttpApiClient(namespace).get(f"rayclusters/{cluster}")
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return {}
    return _derive_autoscaling_config_from_ray_cr(resource)
