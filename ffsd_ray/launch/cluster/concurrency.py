"""Limiting how many trials run at once to what the cluster can hold."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from ray import tune

from ffsd_ray.errors import ClusterLost
from ffsd_ray.launch.cluster.capacity import ResourceRequest
from ffsd_ray.launch.cluster.connection import Cluster

#: Seconds between two looks at the cluster.
INTERVAL = 1.0
#: Seconds after which a cluster that has lost the nodes for all that is left is given up.
LOST = 60.0
#: Trials that wait for nodes on a cluster that has none for them yet.
AHEAD = 4


class LimitedSearcher(Protocol):
    """A searcher of Tune that hands out no further trial while `max_concurrent` trials run."""

    max_concurrent: int


class ConcurrencyLimit(tune.Callback):
    """Sets a searcher's limit of concurrent trials to the number that the cluster holds, as nodes come and go.

    Without it Tune would start every trial at once, each as a process, even if its workers must wait for resources.
    """

    def __init__(
        self, searcher: LimitedSearcher, cluster: Cluster, trials: Mapping[str, ResourceRequest], most: int | None
    ) -> None:
        """`trials`: what each needs, in the order in which they are handed out; `most`: the job's own limit."""
        self._searcher, self._cluster, self._most = searcher, cluster, most
        self._pending = dict(trials)
        self._last_update = self._last_feasible = time.monotonic()
        self._update_limit()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks in a state that is never read again

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._last_update > INTERVAL:
            self._update_limit()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        if self._pending.pop(str(trial), None) is None and self._pending:
            self._pending.popitem()  # one of those that a searcher chose, which had no name before

    def _update_limit(self) -> None:
        """Set the searcher's limit from the cluster's current nodes.

        Raises:
            ClusterLost: for `LOST` seconds the cluster could have run none of the pending trials.
        """
        self._last_update = time.monotonic()
        pending = list(self._pending.values())
        # One runs, or waits, in any case: a limit of 0 would mean none to Tune.
        limit = max(self._cluster.count_concurrent(pending, AHEAD), 1)
        self._searcher.max_concurrent = min(limit, self._most or limit)
        if not pending or any(self._cluster.could_hold(pending)):
            self._last_feasible = self._last_update
        elif self._last_update - self._last_feasible > LOST:
            raise ClusterLost(
                f"for {LOST:.0f} s the cluster has had no node for any of the {len(pending)} trials that are left "
                f"({pending[0]}). Go on when it has one again: the same command with --resume"
            )
