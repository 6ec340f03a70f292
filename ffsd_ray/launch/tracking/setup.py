"""Watching trials from outside: TensorBoard's event files, and Weights & Biases and MLflow where the job asks."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.tracking import WatchSettings
from ffsd_ray.credentials import credentials_here, hidden, same_server
from ffsd_ray.errors import UserError
from ffsd_ray.launch.search.optuna_search import spec_of
from ffsd_ray.launch.tracking.async_logger import AsyncLogger, Watched, Watcher
from ffsd_ray.launch.tracking.tensorboard import TensorBoard
from ffsd_ray.progress_view import View
from ffsd_ray.records.run import RunRecords

#: What MLflow sends to any server that it is told of.
_MLFLOW_CREDENTIALS = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)
#: What clients of databases send, likewise.
_DATABASE_CREDENTIALS = ("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "MYSQL_PWD")


def check_services(watch: WatchSettings) -> None:
    """Check that the packages and keys of the trackers that a job asks for are there.

    Raises:
        UserError: a package or a key is missing, or MLflow's credentials would go to a server that they are not for.
    """
    if watch.mlflow is not None and watch.mlflow.tracking_uri is not None:
        _check_tracking_server(watch.mlflow.tracking_uri)
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


def _check_tracking_server(uri: str) -> None:
    """Raise UserError where a job's `uri` is of a server that would get credentials of the environment not for it."""
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme.lower() in ("file", "sqlite", "databricks"):  # files, or a host that the URI does not name
        return
    credentials = credentials_here((*_MLFLOW_CREDENTIALS, *_DATABASE_CREDENTIALS), ["~/.mlflow/credentials"])
    if credentials and not same_server(uri, os.environ.get("MLFLOW_TRACKING_URI")):
        raise UserError(
            f"watch.mlflow: tracking_uri {hidden(uri)} would get the credentials here ({', '.join(credentials)}), and "
            f"is not known to be the server that they are for. If it is, set MLFLOW_TRACKING_URI={hidden(uri)} in the "
            "environment; else unset them"
        )


def watchers(job: JobSpec, run: RunRecords, labels: Mapping[str, str], view: View) -> list[AsyncLogger]:
    """A callback for each tracker; `labels`: the trials' names by identity."""

    def tensorboard() -> Watcher:
        return TensorBoard(run.store)

    def wandb() -> Watcher:
        from ffsd_ray.launch.tracking.wandb import WandbRuns  # takes its time, and an extra package

        assert job.watch.wandb is not None
        return WandbRuns(job.watch.wandb, run.store)

    def mlflow() -> Watcher:
        from ffsd_ray.launch.tracking.mlflow import MlflowRuns

        assert job.watch.mlflow is not None
        return MlflowRuns(job.watch.mlflow)

    def watched_trial(trial: Any) -> Watched:
        identity = str(trial)
        trial.init_local_path()  # Weights & Biases works in it
        spec = spec_of(trial.config)
        return Watched(
            spec.model_dump(),
            job.name,
            labels.get(identity, identity),
            identity,
            run.trial(identity),
            trial.local_path,
            spec.method.primary_series,
        )

    services = {"wandb": ("Weights & Biases", wandb), "mlflow": ("MLflow", mlflow)}
    kinds = [("TensorBoard", tensorboard), *(services[service] for service in job.watch.services)]
    return [AsyncLogger(name, make, watched_trial, view) for name, make in kinds]
