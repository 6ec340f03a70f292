"""A Tune trial: a function that trains, or that has Ray Train run the trial's workers."""

from typing import Any

from ray import tune
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig

from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.launch.causes import cause_of
from ffsd_ray.launch.cluster.autoscaler import ON_HEAD
from ffsd_ray.launch.cluster.capacity import worker_resources
from ffsd_ray.launch.ray_internals import NamedPlacementGroups, PlainTorchTrainer, TrainRunContext
from ffsd_ray.launch.search.optuna_search import spec_of
from ffsd_ray.launch.worker import train_here, train_worker
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords

#: A function that watches its workers needs no CPU, and stays on the head, whose node outlives the trials.
_WATCHER = {"CPU": 0, **ON_HEAD}
#: Seconds between two looks whether an elastic trial could have more workers. Ray's own list of what nodes there are is
#: up to 20 s old.
_RESIZE_SECONDS = 20.0


def backend(scale: ScaleSettings) -> str:
    """nccl between GPUs; gloo on CPUs, and where two ranks may share a GPU, which nccl refuses."""
    shares = scale.gpu_share < 1 and scale.most_workers > 1
    return "gloo" if not scale.uses_gpu or shares else "nccl"


def trains_here(config: dict[str, Any]) -> bool:
    """Whether a trial trains in Tune's own process; `config` as `run_trial` is given it.

    With `scale.launcher: auto` one worker does, on a cluster that the driver started on its own machine; and in a
    population, for a scheduler hands its configuration to others, which it can in Tune's process alone.
    """
    scale = spec_of(config).scale
    if scale.launcher == "auto":
        return scale.one_worker and (config["trial"]["own_cluster"] or bool(config["trial"]["mutable"]))
    return scale.launcher == "trial"


def trial_resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """The resources that Tune reserves for the process that `run_trial` runs in."""
    resources = worker_resources(spec_of(config).scale) if trains_here(config) else _WATCHER
    return tune.PlacementGroupFactory([resources])


def run_trial(config: dict[str, Any]) -> None:
    """Train `config["trial"]`; what comes of it is in the records, a failure too.

    The trial: what `train_worker` takes, and `own_cluster`, `max_retries`, `ray_storage`; in place of `identity` and
    `records` the folder of all `trials`, for a population based scheduler hands one trial's configuration to another.
    """
    name = tune.get_context().get_trial_name()
    trial_config = {
        "identity": name,
        "records": f"{config['trial']['trials']}/{name}",
        "spec": spec_of(config).model_dump(),
    }
    (train_here if trains_here(config) else _watch)(config["trial"] | trial_config)


class _ReportToTune(UserCallback):
    """Hands what the first worker reports on to Tune, in whose process Ray Train's controller runs.

    Ray's own `TuneReportCallback` is for a controller elsewhere, with one more process in between.
    """

    def after_report(
        self, run_context: TrainRunContext, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        tune.report(metrics[0])


def _watch(config: dict[str, Any]) -> None:
    """Have Ray Train run the trial's workers, until they have ended."""
    scale = ScaleSettings.model_validate(config["spec"]["scale"])
    workers = (scale.fewest_workers, scale.most_workers) if scale.elastic else scale.most_workers
    trainer = PlainTorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend=backend(scale)),
        scaling_config=ScalingConfig(
            num_workers=workers,  # type: ignore[arg-type]
            use_gpu=scale.uses_gpu,
            resources_per_worker=worker_resources(scale),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,  # type: ignore[call-arg]
        ),
        run_config=RunConfig(  # type: ignore[arg-type]
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=config["ray_storage"],
            failure_config=FailureConfig(max_failures=config["max_retries"]),
            callbacks=[_ReportToTune(), NamedPlacementGroups(config["identity"])],  # type: ignore[list-item]
        ),
    )
    records = TrialRecords(Store(config["records"]))
    records.forget_error()
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if records.state() != "failed":  # a worker knows better why
            records.fail("TrainingFailed", cause_of(error), str(error))
