"""Ray Tune runs a job's trials."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

# Read by Ray when it is imported or started: how often a trial's reports are fetched (its own 2 s would make short
# epochs wait), no traffic to Ray's makers, and Ctrl-C left to us.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune

from ffsd_ray.errors import ClusterError
from ffsd_ray.launch.trial import run_trial, worker_resources
from ffsd_ray.records.run import RunRecords
from ffsd_ray.spec.job import JobSpec
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.view import View

#: A trial's function only watches its workers: it needs no CPU, and stays on the head, whose node outlives the trials.
WATCHER = {"CPU": 0, "node:__internal_head__": 0.001}


class _ViewCallback(tune.Callback):
    """Hands Tune's events to the view."""

    def __init__(self, run: RunRecords, view: View) -> None:
        self._run, self._view = run, view

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks in a state that is never read again; a view cannot be saved

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        identity = _identity(trial)
        done = len(self._run.trial(identity).history())
        self._view.started(identity, trial.config["trial"]["spec"]["train"]["epochs"], done)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            self._view.epoch(_identity(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        identity = _identity(trial)
        records = self._run.trial(identity)
        state = records.state()
        self._view.ended(identity, state, records.error()["message"] if state == "failed" else "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # The trial function records what its workers do; this is Ray failing around it.
        identity = _identity(trial)
        message = f"the trial's process failed: see {trial.path}/error.txt"
        self._run.trial(identity).fail("TrialProcessFailed", message)
        self._view.ended(identity, "failed", message)


def run_on_ray(trials: Sequence[TrialSpec], job: JobSpec, run: RunRecords, view: View, *, verbose: bool) -> None:
    """Train every trial on the cluster that RAY_ADDRESS names, or on one started here and stopped at the end."""
    ray_storage = f"{run.store.location}/ray"
    configs = [
        {
            "identity": (identity := spec.identity()),
            "spec": spec.model_dump(),
            "records": run.trial(identity).store.location,
            "keep_checkpoints": job.records.keep_checkpoints == "all",
            "max_retries": job.failures.max_retries,
            "ray_storage": ray_storage,
            "directory": os.getcwd(),
        }
        for spec in trials
    ]
    with _cluster(trials, verbose=verbose):
        tuner = tune.Tuner(
            tune.with_resources(run_trial, WATCHER),
            param_space={"trial": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=job.scale.trials_at_once or _capacity(trials),
                trial_name_creator=_identity,
                trial_dirname_creator=_identity,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=ray_storage,
                verbose=1 if verbose else 0,
                callbacks=[_ViewCallback(run, view)],
            ),
        )
        with contextlib.nullcontext() if verbose else _silenced():
            tuner.fit()


def _identity(trial: Any) -> str:
    """A trial by its identity, where Tune would spell out its whole spec."""
    return trial.config["trial"]["identity"]


@contextlib.contextmanager
def _cluster(trials: Sequence[TrialSpec], *, verbose: bool) -> Iterator[None]:
    """Connected to the cluster of RAY_ADDRESS, or to one of this machine alone. Raises ClusterError."""
    options: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # CPUs are Ray's book-keeping: a trial of more workers than there are cores runs, if slowly.
        needed = max(int(spec.scale.workers * spec.scale.cpus_per_worker) for spec in trials)
        options = {"num_cpus": max(os.cpu_count() or 1, needed), "include_dashboard": False}
    environment = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            runtime_env={"env_vars": environment},
            **options,
        )
    except ConnectionError as error:
        raise ClusterError(f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}: {error.__cause__}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in this place
    try:
        yield
    finally:
        ray.shutdown()


def _capacity(trials: Sequence[TrialSpec]) -> int:
    """How many of the largest trial the cluster's nodes hold together; at least 1."""
    fewest = None
    for scale in {spec.scale for spec in trials}:
        needed = worker_resources(scale)
        workers = sum(
            int(min(node["Resources"].get(name, 0) // amount for name, amount in needed.items()))
            for node in ray.nodes()
            if node["Alive"]
        )
        together = workers // scale.workers
        fewest = together if fewest is None else min(fewest, together)
    return max(fewest or 1, 1)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without what Tune prints, which the view replaces."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield
