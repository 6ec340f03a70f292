"""What a job's trials run on: what the job leaves open is chosen by what there is, and what stays idle is told.

Whether trials train on GPUs, and with how many CPU threads, is part of what they compute. So it is chosen once, before
a run's trials are named, for all that leave it open alike; the run records it, and keeps it when it is resumed.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ffsd_ray.config.inspection.memory import check_memory
from ffsd_ray.config.load import Plan
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import JobError

#: Threads that a worker is given at most, unless the job says more: beyond, short steps of small networks wait rather
#: than compute. A guess, not a measurement.
_MOST_THREADS = 16

#: Why a value is what it is in a run that goes on.
_AS_RECORDED = "as when this run began"

#: Of a machine on which it is worth a word that most of them are idle.
_MANY_CORES = 4


class _Choice(NamedTuple):
    value: Any
    reason: str

    def line(self, key: str) -> str:
        return f"Chosen, as the job does not say it: scale.{key}: {str(self.value).removesuffix('.0')} ({self.reason})"


def with_resources(
    plan: Plan, recorded: ScaleSettings | None = None, *, ask_cluster: bool = True, verbose: bool = False
) -> tuple[Plan, list[str]]:
    """The plan with a number for what its trials leave open, and a line on each that was chosen.

    Args:
        recorded: the section `scale` that the run to go on with has recorded, which is kept.
        ask_cluster: whether to connect to a cluster that RAY_ADDRESS names; if not, what it decides stays open.
        verbose: show Ray's own messages.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    lines = []
    if any("gpus_per_worker" in trial.scale.left_open for trial in plan.specs):
        if recorded is not None and recorded.gpus_per_worker is not None:
            gpus = _Choice(recorded.gpus_per_worker, _AS_RECORDED)
        elif _elsewhere(plan) and not ask_cluster:
            return plan, [
                "scale.gpus_per_worker is chosen when the run begins: 1 if the cluster has GPUs, or its autoscaler may "
                "start nodes with them, else 0, as shown here; other trials, by their identities, train on GPUs."
            ]
        else:
            gpus = _choose_gpus(plan, verbose=verbose)
        plan = _with(plan, "gpus_per_worker", gpus.value)
        lines.append(gpus.line("gpus_per_worker"))
    if any("cpus_per_worker" in trial.scale.left_open for trial in plan.specs):
        if recorded is not None and recorded.cpus_per_worker is not None:
            cpus = _Choice(recorded.cpus_per_worker, _AS_RECORDED)
        else:
            cpus = _choose_cpus(plan)
        plan = _with(plan, "cpus_per_worker", cpus.value)
        lines.append(cpus.line("cpus_per_worker"))
    return plan, lines


def placed(
    plan: Plan, recorded: ScaleSettings | None = None, *, ask_cluster: bool = True, verbose: bool = False
) -> tuple[Plan, list[str]]:
    """What `with_resources` returns, with notes on what of this machine would be too small or idle.

    Raises:
        ClusterError: see `with_resources`.
        JobError: trials of this process want a GPU that is not there, or more memory than there is.
    """
    plan, notes = with_resources(plan, recorded, ask_cluster=ask_cluster, verbose=verbose)
    if plan.job.context == "local" and ask_cluster:
        check_device(plan)
    return plan, [*notes, *check_memory(plan), *idle_parts(plan)]


def idle_parts(plan: Plan) -> Iterator[str]:
    """Notes on a GPU, or most of the processors, of this machine that the job would leave idle."""
    if os.environ.get("RAY_ADDRESS"):
        return
    scales = [trial.scale for trial in (*plan.trials, *plan.extremes)]
    if any(scale.uses_gpu for scale in scales):
        return
    workers = max((scale.most_workers for scale in scales), default=1)
    if gpus := torch.cuda.device_count():
        share = math.floor(min(1, gpus / workers) * 10_000) / 10_000
        yield f"This machine's GPU stands idle; scale.gpus_per_worker: {share:g} trains on it."
        return
    cores, at_once = _cpus(), _at_once(plan)
    used = at_once * max((scale.most_workers * scale.worker_threads for scale in scales), default=cores)
    if cores >= _MANY_CORES and 2 * used <= cores:
        key = "scale.threads" if plan.job.context == "local" else "scale.cpus_per_worker"
        yield f"Of this machine's {cores} cores {used} will be at work; {key}: {cores // at_once} uses all of them."


def check_device(plan: Plan) -> None:
    """Raise JobError where trials of this process want a GPU that is not there."""
    if any(trial.scale.uses_gpu for trial in plan.trials) and not torch.cuda.is_available():
        raise JobError(
            "scale.gpus_per_worker: with `context: local` trials train on this machine, where torch finds no GPU; "
            "expected 0, or a cluster that has one (context: ray)"
        )


def _choose_gpus(plan: Plan, *, verbose: bool) -> _Choice:
    """A GPU a worker for all trials that leave it open, or none for any of them: they are compared with each other."""
    # Imported only here, as the driver is.
    from ffsd_ray.launch.cluster.capacity import count_fitting, resources_of

    open_scales = {trial.scale for trial in plan.specs if "gpus_per_worker" in trial.scale.left_open}
    requests = [resources_of(scale.changed(gpus_per_worker=1)) for scale in open_scales]
    place = "the cluster" if _elsewhere(plan) else "this machine"
    if _elsewhere(plan):
        from ffsd_ray.launch.cluster.connection import connected

        with connected([], verbose=verbose) as cluster:
            gpus, held = cluster.has_gpus(), list(cluster.could_hold(requests))
    else:
        # What has no room for want of CPUs or memory has none without a GPU either.
        node = {"CPU": math.inf, "GPU": torch.cuda.device_count(), "memory": math.inf}
        gpus, held = bool(node["GPU"]), [count_fitting([node], [request]) == 1 for request in requests]
    if not gpus:
        return _Choice(0, f"{place} has no GPU")
    if all(held):
        return _Choice(1, f"{place} has GPUs")
    too_large = requests[held.index(False)]
    return _Choice(0, f"{place} has GPUs, which stand idle: it cannot hold {too_large}; give a worker a share of one")


def _choose_cpus(plan: Plan) -> _Choice:
    """As many CPUs, and so threads, for each worker of the trials that leave it open."""
    if _elsewhere(plan):
        return _Choice(1, "on a cluster")
    open_scales = [trial.scale for trial in plan.specs if "cpus_per_worker" in trial.scale.left_open]
    workers = _at_once(plan) * max(scale.most_workers for scale in open_scales)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    most = min(int(limit), _MOST_THREADS) if limit.isdecimal() else _MOST_THREADS
    share = max(1, min(_cpus() // workers, most))
    return _Choice(share, f"this machine's {_cpus()}, shared out among {workers} at once, {most} at most")


def _cpus() -> int:
    """CPUs of this machine that this process may use, control groups and affinity considered."""
    from joblib import cpu_count  # only here: it takes a while to import

    return int(cpu_count())


def _at_once(plan: Plan) -> int:
    """Trials that run at once where there is room; those that others learn from run before them."""
    if plan.job.context == "local":
        return 1
    first = len(plan.needed)
    return min(max(first, plan.total - first), plan.job.scale.trials_at_once or plan.total)


def _elsewhere(plan: Plan) -> bool:
    """Whether trials run on a cluster that the environment names, not on this machine."""
    return plan.job.context == "ray" and bool(os.environ.get("RAY_ADDRESS"))


def _with(plan: Plan, key: str, value: Any) -> Plan:
    """The plan with this value for a key of `scale` in every trial that leaves it open, and in the job."""

    def filled(trial: TrialSpec) -> TrialSpec:
        return trial.changed(scale=trial.scale.changed(**{key: value})) if key in trial.scale.left_open else trial

    job = plan.job.changed(scale=plan.job.scale.changed(**{key: value}))
    return replace(plan, job=job).changed(filled)
