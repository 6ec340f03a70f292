"""A Tune trial: a function that has Ray Train run the trial's workers."""

from typing import Any

from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.integration.ray_train import TuneReportCallback

from ffsd_ray.launch.worker import train_worker
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.spec.scale import ScaleSettings


def worker_resources(scale: ScaleSettings) -> dict[str, float]:
    """What Ray reserves for one worker."""
    resources: dict[str, float] = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    return resources


def backend(scale: ScaleSettings) -> str:
    """nccl between GPUs; gloo on CPUs, and where two ranks may share a GPU, which nccl refuses."""
    shares = scale.gpus_per_worker < 1 and scale.workers > 1
    return "gloo" if not scale.gpus_per_worker or shares else "nccl"


def run_trial(config: dict[str, Any]) -> None:
    """Train `config["trial"]`; what comes of it is in the records, a failure too.

    The trial: what `train_worker` takes, and `max_retries`, `ray_storage`.
    """
    config = config["trial"]
    scale = ScaleSettings.model_validate(config["spec"]["scale"])
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend=backend(scale)),
        scaling_config=ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=worker_resources(scale),
        ),
        run_config=RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=config["ray_storage"],
            failure_config=FailureConfig(max_failures=config["max_retries"]),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        TrialRecords(Store(config["records"])).fail(type(error).__name__, str(error))
