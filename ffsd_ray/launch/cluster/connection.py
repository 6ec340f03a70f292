"""The Ray cluster that a job runs on: one that RAY_ADDRESS names, or one of this machine alone."""

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import ray

from ffsd_ray import plugins
from ffsd_ray.credentials import hidden
from ffsd_ray.errors import ClusterError
from ffsd_ray.interruption import postponed
from ffsd_ray.launch.cluster.autoscaler import ON_HEAD, autoscaler_limits
from ffsd_ray.launch.cluster.capacity import (
    NO_AUTOSCALER,
    AutoscalerLimits,
    ResourceRequest,
    Resources,
    count_fitting,
    largest,
)
from ffsd_ray.launch.scratch import scratch_folder

#: Seconds that nodes and autoscalers get to appear before a trial that nothing can hold is refused.
PATIENCE = 30
#: Maximum time for which the end waits for Ray's start and shutdown.
_SHUTDOWN_SECONDS = 60.0
#: Letters that the path of the temporary folder may have, for below it Ray makes sockets, whose paths have at most 107.
_LONGEST_PARENT = 24
#: Where Ray keeps the token of a cluster that it starts.
_TOKEN = Path("~/.ray/auth_token")


class Cluster:
    """The connected cluster: its nodes now, and those that its autoscaler may add."""

    def __init__(self, limits: AutoscalerLimits | None, patience: float, *, local: bool = False) -> None:
        """`limits`: of the autoscaler, for worker nodes in all; None if they cannot be read.

        `patience`: seconds that nodes get to appear; `local`: whether Ray was started here, on this machine alone.
        """
        self._limits, self._patience, self.local = limits, patience, local

    @property
    def grows(self) -> bool:
        return self._limits is None or bool(self._limits.types)

    def nodes(self) -> list[Resources]:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def could_hold(self, trials: Iterable[ResourceRequest]) -> Iterator[bool]:
        """Whether each of the trials could ever run, alone if need be. Those that need the same are tested once."""
        limits, nodes = self._limits, self.nodes()
        # Idle workers go, and make room for others.
        heads = [node for node in nodes if not _is_worker(node)]
        by_request: dict[Any, bool] = {}
        for trial in trials:
            key = (trial.workers, *sorted(trial.each.items()))
            if key not in by_request:
                by_request[key] = (
                    limits is None
                    or count_fitting(nodes, [trial], self._remaining_limits(nodes)) == 1
                    or count_fitting(heads, [trial], limits) == 1
                )
            yield by_request[key]

    def has_gpus(self) -> bool:
        """Whether a node has a GPU, or the autoscaler may start one that has, as far as its limits can be read."""
        types = self._limits.types if self._limits is not None else ()
        return any(kind.get("GPU", 0) >= 1 for kind in [*self.nodes(), *(kind.resources for kind in types)])

    def count_concurrent(self, trials: Sequence[ResourceRequest], ahead: int) -> int:
        """Number of the trials, taken in order, that may run at once: those that the nodes hold.

        If the cluster can grow, as many more, at least `ahead`, so that the autoscaler sees the demand.
        """
        nodes = self.nodes()
        now = count_fitting(nodes, trials)
        if not self.grows:
            return now
        wanted = trials[: now + max(now, ahead)]
        return len(wanted) if self._limits is None else count_fitting(nodes, wanted, self._remaining_limits(nodes))

    def _remaining_limits(self, nodes: Sequence[Resources]) -> AutoscalerLimits:
        """The limits less the worker nodes that exist."""
        assert self._limits is not None
        return self._limits._replace(most=self._limits.most - sum(map(_is_worker, nodes)))

    def refused(self, trials: Mapping[str, ResourceRequest]) -> dict[str, str]:
        """Reasons, by trial, for those that can never run. Nodes get a while to appear."""
        until = time.monotonic() + self._patience
        while not all(could := list(self.could_hold(trials.values()))) and time.monotonic() < until:
            time.sleep(1)
        return {
            name: self._refusal_reason(trials[name]) for name, holds in zip(trials, could, strict=True) if not holds
        }

    def _refusal_reason(self, trial: ResourceRequest) -> str:
        nodes = {f"node {node['NodeManagerAddress']}": node["Resources"] for node in ray.nodes() if node["Alive"]}
        types = self._limits.types if self._limits is not None else ()
        nodes |= {f"node type {kind.name}": kind.resources for kind in types if kind.most}
        return f"the cluster can never hold it: it asks for {trial}; the largest is {largest(nodes)}"


#: Environment variables of the driver that every process of a run gets; nothing secret, since Ray logs them.
_FORWARDED_VARIABLES = (
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    plugins.VARIABLE,
)


@contextlib.contextmanager
def connected(trials: Sequence[ResourceRequest], *, verbose: bool) -> Iterator[Cluster]:
    """Connect, for the block, to the cluster of RAY_ADDRESS or to one started here that ends with this process.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    environment = {name: os.environ[name] for name in _FORWARDED_VARIABLES if name in os.environ}
    if not address:  # where a process for each trial would look whether this machine is about to be taken back
        environment["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    with contextlib.ExitStack() as at_the_end:
        options = {} if address else _local_cluster_options(trials, at_the_end)
        options["runtime_env"] = {"env_vars": environment}
        at_the_end.enter_context(_ray_running(options, verbose=verbose))
        with contextlib.suppress(OSError):  # Ray lets everybody read the token that it makes, and run code as this user
            _TOKEN.expanduser().chmod(0o600)
        yield Cluster(autoscaler_limits(), PATIENCE) if address else Cluster(NO_AUTOSCALER, 0, local=True)


def _local_cluster_options(trials: Sequence[ResourceRequest], at_the_end: contextlib.ExitStack) -> dict[str, Any]:
    """Options of `ray.init` for a cluster of this machine alone, of which nothing is left in the end."""
    # CPUs are Ray's book-keeping: a trial of more workers than there are cores runs, if slowly.
    needed = max(int(trial.workers * trial.each["CPU"]) for trial in trials)
    options = {"address": "local", "num_cpus": max(os.cpu_count() or 1, needed), "include_dashboard": False}
    if "RAY_TMPDIR" in os.environ:  # somebody wants to read Ray's logs
        return options
    parent = tempfile.gettempdir()
    folder = at_the_end.enter_context(scratch_folder(parent if len(parent) <= _LONGEST_PARENT else "/tmp"))
    return options | {"_temp_dir": folder}


@contextlib.contextmanager
def _ray_running(options: Mapping[str, Any], *, verbose: bool) -> Iterator[None]:
    """Run Ray for the block, started and shut down by a thread of its own.

    Signals interrupt the main thread alone. There they would leave Ray's start half done, which its C++ code answers by
    aborting the process; and Ray would replace the handler of SIGTERM. The thread lasts as long as the block: Linux
    ends Ray's processes with the thread that started them.

    Raises:
        ClusterError: Ray cannot be started, or reached.
    """
    level = logging.INFO if verbose else logging.ERROR
    started, over = Future[None](), threading.Event()
    logging.getLogger("ray").setLevel(level)  # it warns of the handler that it does not replace

    def hold() -> None:
        try:
            ray.init(log_to_driver=verbose, logging_level=level, **options)
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)
            over.wait()
        ray.shutdown(wait_for_processes=True)

    thread = threading.Thread(target=hold, name="ray", daemon=True)
    thread.start()
    try:
        try:
            while wait([started], timeout=0.05).not_done:
                _keep_sigterm()
            _keep_sigterm()
            started.result()
        except Exception as error:  # by address, version and network Ray raises errors of many kinds
            address = os.environ.get("RAY_ADDRESS")
            where = f"RAY_ADDRESS={hidden(address)}" if address else "Ray cannot be started on this machine"
            raise ClusterError(f"{where}: {_short_message(error)}{_hint(address)}") from error
        yield
    finally:
        with postponed():
            over.set()
            thread.join(_SHUTDOWN_SECONDS)


def _keep_sigterm() -> None:
    """Put Python's handler of SIGTERM back in its place: Ray's C++ code puts one there that ends the process."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _hint(address: str | None) -> str:
    """A hint for an address that is a cluster's dashboard."""
    if address is None or not address.startswith(("http://", "https://")):
        return ""
    return (
        " This is a dashboard's address, which `ray job submit --address` takes. Expected HOST:PORT of the head, "
        "ray://HOST:10001, or nothing: a submitted job needs no RAY_ADDRESS"
    )


def _short_message(error: Exception) -> str:
    """Ray's message and its cause; of a traceback the last line alone."""
    text = ": ".join(str(part) for part in (error, error.__cause__) if part is not None)
    message, _, stack = text.partition("Traceback (most recent call last):")
    return message + "".join(stack.strip().splitlines()[-1:])


def _is_worker(node: Resources) -> bool:
    return not ON_HEAD.keys() <= node.keys()
