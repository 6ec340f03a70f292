"""Ray Tune runs a job's trials."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.searchers import Asha, EveryTrial, MedianStopping, Optuna, Pbt
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import ClusterLost
from ffsd_ray.interruption import postponed
from ffsd_ray.launch.cluster.capacity import resources_of
from ffsd_ray.launch.cluster.concurrency import ConcurrencyLimit
from ffsd_ray.launch.cluster.connection import Cluster, connected
from ffsd_ray.launch.cluster.gpu_share import resolve_gpu_shares
from ffsd_ray.launch.cluster.head_watchdog import head_watched
from ffsd_ray.launch.cluster.orphans import OrphanedPlacementGroups
from ffsd_ray.launch.progress_callback import ViewCallback
from ffsd_ray.launch.ray_internals import ListedTrials, keep_secrets_from_runtime_environments
from ffsd_ray.launch.scratch import scratch_folder
from ffsd_ray.launch.search.optuna_search import Announce, completed, optuna, spec_of
from ffsd_ray.launch.search.schedulers import ranked, scheduler
from ffsd_ray.launch.tracking.async_logger import AsyncLogger
from ffsd_ray.launch.tracking.setup import watchers
from ffsd_ray.launch.trial import run_trial, trains_here, trial_resources
from ffsd_ray.progress_view import NotebookView, View
from ffsd_ray.records.run import RunRecords
from ffsd_ray.terminal import plain

keep_secrets_from_runtime_environments()


@dataclass(frozen=True)
class Driver:
    """Trains a job's trials on the cluster that RAY_ADDRESS names, or on one started here and stopped at the end.

    `labels`: names of the trials by identity. `announce`: told of each trial that a searcher chooses. `verbose`: show
    Ray's own messages.
    """

    job: JobSpec
    run: RunRecords
    view: View
    labels: Mapping[str, str]
    announce: Announce
    verbose: bool

    def train(self, trials: Sequence[TrialSpec]) -> None:
        """Train every trial; where a searcher chooses them, `trials` has the one that they are made from.

        A trial that the cluster could never hold is recorded as failed, and the others go on. Where the cluster's head
        is gone the process ends with a message and the status of ClusterLost.

        Raises:
            ClusterError: the cluster cannot be reached.
            ClusterLost: it has lost the nodes for what is left.
        """
        with (
            # for what Ray writes beside the records; deleted once Ray has let go of it
            scratch_folder(tempfile.gettempdir(), f"{self.job.name}-") as scratch,
            connected([resources_of(spec.scale) for spec in trials], verbose=self.verbose) as cluster,
            head_watched(ray.get_runtime_context().gcs_address, lambda error: self._end(error, scratch)),
        ):
            if fitting := resolve_gpu_shares(self._fitting(trials, cluster)):
                trackers = watchers(self.job, self.run, self.labels, self.view)
                tuner = self._tuner(fitting, cluster, scratch, trackers)
                try:
                    with contextlib.nullcontext() if self.verbose else _silenced():
                        tuner.fit()
                finally:
                    with postponed():
                        for tracker in trackers:
                            tracker.close()

    def _end(self, error: ClusterLost, scratch: str) -> None:
        """End the process at once: Ray waits in vain for a head that is gone."""
        self.view.__exit__(None, None, None)  # gives a terminal its cursor back
        print(plain(str(error)), file=sys.__stderr__, flush=True)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(error.status)

    def _fitting(self, trials: Sequence[TrialSpec], cluster: Cluster) -> list[TrialSpec]:
        """The trials that can run; the others are recorded as failed."""
        refused = cluster.refused({spec.identity(): resources_of(spec.scale) for spec in trials})
        for name, why in refused.items():
            self.run.trial(name).fail("DoesNotFit", why)
            self.view.ended(name, "failed", why)
        return [spec for spec in trials if spec.identity() not in refused]

    def _tuner(
        self, trials: Sequence[TrialSpec], cluster: Cluster, scratch: str, trackers: Sequence[AsyncLogger]
    ) -> tune.Tuner:
        job = self.job
        mutable = list(job.search.scheduler.mutate) if isinstance(job.search.scheduler, Pbt) else []
        # A population's checkpoints Tune hands from one node to another. Else nobody reads what Ray writes beside the
        # records: in an object store it would be most of a run's requests, with Ray's few retries the first to fail.
        ray_storage = self.run.store.child("ray").location if mutable else scratch
        configs = [self._config(spec, cluster, mutable, ray_storage) for spec in trials]
        wanted = {spec.identity(): resources_of(spec.scale) for spec in trials}
        searcher: ListedTrials | ConcurrencyLimiter = ListedTrials([{"trial": config} for config in configs])
        param_space: dict[str, Any] = {}
        samples = 1
        if isinstance(job.search.searcher, Optuna):
            (template,), (config,) = trials, configs
            known = completed(self.run, template)
            primary_series = template.method.primary_series
            searcher = optuna(job.search, job.search.searcher, self.run, primary_series, known)
            param_space = {"trial": config}
            assert job.search.samples is not None
            samples = job.search.samples - len(known)
            wanted = {f"sample {index}": resources_of(template.scale) for index in range(samples)}
        return tune.Tuner(
            tune.with_resources(run_trial, trial_resources),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=samples,
                scheduler=scheduler(job.search.scheduler, trials),
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                reuse_actors=self._reuses_processes(configs),
            ),
            run_config=tune.RunConfig(
                name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=ray_storage,
                verbose=1 if self.verbose else 0,
                # In a notebook Tune would clear the cell and show a table of its own, whatever the verbosity.
                progress_reporter=_NoReporter() if isinstance(self.view, NotebookView) else None,
                # Workers that fail are Ray Train's to replace; this is the process of the trial itself.
                failure_config=tune.FailureConfig(max_failures=job.failures.max_retries),
                callbacks=[
                    ConcurrencyLimit(searcher, cluster, wanted, job.scale.trials_at_once),
                    ViewCallback(self.run, self.view, self.labels, self.announce),
                    OrphanedPlacementGroups(self.view, self.labels),
                    *trackers,
                ],
            ),
        )

    def _reuses_processes(self, configs: Sequence[dict[str, Any]]) -> bool:
        """Whether a process that a trial leaves takes another one: starting one costs seconds.

        One that watches workers cannot be taken away from a trial that a scheduler stops. Which trials have such a one
        is not known where their scale is still to be chosen.
        """
        search = self.job.search
        if isinstance(search.scheduler, EveryTrial):
            return True
        return all(trains_here({"trial": config}) for config in configs) and not any(map(_is_of_scale, search.random))

    def _config(self, spec: TrialSpec, cluster: Cluster, mutable: list[str], ray_storage: str) -> dict[str, Any]:
        """A Tune trial's configuration, see `run_trial`."""
        return {
            "spec": spec.model_dump(),
            "own_cluster": cluster.local,
            "trials": self.run.store.child("trials").location,
            # of a population any epoch may be taken over by another trial
            "keep_checkpoints": self.job.records.keep_checkpoints == "all" or bool(mutable),
            "stoppable": isinstance(self.job.search.scheduler, Asha | MedianStopping),
            "ranked": ranked(self.job.search, spec),
            "mutable": mutable,
            "max_retries": self.job.failures.max_retries,
            "ray_storage": ray_storage,
            "directory": os.getcwd(),
        }


class _NoReporter(tune.ProgressReporter):
    """Leaves the progress to the view."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False


def _is_of_scale(key: str) -> bool:
    """Whether a dotted key is one of the section `scale`, or the section itself."""
    return key.partition(".")[0] == "scale"


def _name(trial: Any) -> str:
    """A trial by its identity, where Tune would spell out its whole spec."""
    return spec_of(trial.config).identity()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without what Tune prints, which the view replaces."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield
