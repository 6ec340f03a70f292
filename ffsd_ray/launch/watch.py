"""Watching trials from outside: TensorBoard's event files, and Weights & Biases and MLflow where the job asks."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from ray import tune

from ffsd_ray.errors import UserError
from ffsd_ray.launch.background import InBackground, Watched, Watcher
from ffsd_ray.launch.chosen import spec_of
from ffsd_ray.launch.tensorboard import TensorBoard
from ffsd_ray.records.run import RunRecords
from ffsd_ray.spec.job import JobSpec
from ffsd_ray.spec.watch import WatchSettings
from ffsd_ray.view import View


def check_services(watch: WatchSettings) -> None:
    """Do nothing where all that the job asks for can be had.

    Raises:
        UserError: a package or a key is missing.
    """
    for service in watch.services:
        if importlib.util.find_spec(service) is None:
            raise UserError(f'watch.{service}: needs extra packages: pip install "ffsd-ray[{service}]"')
    if watch.wandb is not None:
        from ray.air.integrations.wandb import WandbLoggerCallback

        try:
            WandbLoggerCallback(project=watch.wandb.project).setup()
        except ValueError as error:
            raise UserError(
                "watch.wandb: no key found. Set WANDB_API_KEY, run `wandb login`, or keep the runs on disk with "
                "WANDB_MODE=offline"
            ) from error


def watchers(job: JobSpec, run: RunRecords, labels: Mapping[str, str], view: View) -> list[tune.Callback]:
    """A callback for each way of watching; `labels`: the trials' names by identity."""

    def tensorboard() -> Watcher:
        return TensorBoard(run.store)

    def wandb() -> Watcher:
        from ffsd_ray.launch.wandb_runs import WandbRuns  # takes its time, and an extra package

        assert job.watch.wandb is not None
        return WandbRuns(job.watch.wandb, run.store)

    def mlflow() -> Watcher:
        from ffsd_ray.launch.mlflow_runs import MlflowRuns

        assert job.watch.mlflow is not None
        return MlflowRuns(job.watch.mlflow)

    def seen(trial: Any) -> Watched:
        identity = str(trial)
        trial.init_local_path()  # Weights & Biases works in it
        return Watched(
            spec_of(trial.config).model_dump(),
            job.name,
            labels.get(identity, identity),
            identity,
            run.trial(identity),
            trial.local_path,
        )

    services = {"wandb": ("Weights & Biases", wandb), "mlflow": ("MLflow", mlflow)}
    kinds = [("TensorBoard", tensorboard), *(services[service] for service in job.watch.services)]
    return [InBackground(name, make, seen, view) for name, make in kinds]
