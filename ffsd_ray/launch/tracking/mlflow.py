"""Sending a run to MLflow."""

import os
from typing import Any

# Read by MLflow when it is imported: no traffic to its makers, and no word of the tables that it makes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from mlflow import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from ffsd_ray.config.tracking import MlflowSettings


class MlflowRuns(MLflowLoggerCallback):
    """A run a trial; a resumed trial's is found by its tag `records`, and goes on after the epochs that it has."""

    def __init__(self, settings: MlflowSettings) -> None:
        super().__init__(settings.tracking_uri, experiment_name=settings.experiment)
        self.tags: dict[str, str] = {}
        self._known: dict[Any, set[int]] = {}

    def log_trial_start(self, trial: Any) -> None:
        location = trial.records.store.location
        self.tags = {"job": trial.job, "seed": str(trial.config["seed"]), "label": trial.label, "records": location}
        self._known[trial] = set()
        client = MlflowClient(self.tracking_uri)
        quoted = location.replace("'", "''")
        experiment = self.mlflow_util.experiment_id
        assert experiment is not None  # `setup` has found or made it
        for run in client.search_runs([experiment], f"tags.records = '{quoted}'", max_results=1):
            self._trial_runs[trial] = run.info.run_id
            self._known[trial] = {metric.step for metric in client.get_metric_history(run.info.run_id, "seconds")}
            client.update_run(run.info.run_id, status="RUNNING")
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if iteration not in self._known[trial]:
            super().log_trial_result(iteration, trial, result)
