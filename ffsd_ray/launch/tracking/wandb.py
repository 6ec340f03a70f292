"""Sending a run to Weights & Biases."""

import os
from typing import Any

import ray
from ray.air.integrations.wandb import WANDB_ENV_VAR, WandbLoggerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ffsd_ray.config.tracking import WandbSettings
from ffsd_ray.launch.ray_internals import WandbLoggingActor
from ffsd_ray.launch.tracking.async_logger import PATIENCE
from ffsd_ray.records.store import Store

#: The longest tag that the service takes.
_LONGEST = 64


class _Sender(WandbLoggingActor):
    """Gets the key as an argument: Ray's callback puts it into a runtime environment, which Ray writes to its logs."""

    def __init__(self, *arguments: Any, key: str | None, **options: Any) -> None:
        if key is not None:
            os.environ[WANDB_ENV_VAR] = key
        super().__init__(*arguments, **options)


class WandbRuns(WandbLoggerCallback):
    """A run a trial, in the job's group. Files are in RUN/wandb where RUN is a local folder."""

    def __init__(self, settings: WandbSettings, store: Store) -> None:
        super().__init__(
            project=settings.project,
            entity=settings.entity,
            mode=os.environ.get("WANDB_MODE"),  # Ray's processes need not have this one's environment
            dir=None if "://" in store.location else store.location,
            resume="allow",
            upload_timeout=PATIENCE,
            key=os.environ.get(WANDB_ENV_VAR),
        )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": -1,
            "scheduling_strategy": here,
        }
        self._remote_logger_class = ray.remote(**options)(_Sender)  # type: ignore[assignment]

    def log_trial_start(self, trial: Any) -> None:
        tags = [trial.job, f"seed {trial.config['seed']}", trial.label]
        self.kwargs["tags"] = [tag[:_LONGEST] for tag in tags]
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, result)
        self._check(timeout=0)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        try:
            self._check(timeout=self._upload_timeout)
        finally:
            super().on_experiment_end(trials)

    def _check(self, timeout: float) -> None:
        """Raise what has ended a process that sends, which Ray's callback passes over."""
        futures = list(self._trial_logging_futures.values())
        ended, _ = ray.wait(futures, num_returns=len(futures), timeout=timeout) if futures else ([], [])
        ray.get(ended)
