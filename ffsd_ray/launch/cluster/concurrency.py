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


class Limited(Protocol):
    """A searcher of Tune's, which hands out no trial while this many are under way."""

    max_concurrent: int


class Admission(tune.Callback):
    """Keeps a searcher's limit at what the cluster holds, as nodes come and go.

    Tune alone would start every trial at once, each a process even where only its workers need room.
    """

    def __init__(
        self, searcher: Limited, cluster: Cluster, trials: Mapping[str, ResourceRequest], most: int | None
    ) -> None:
        """`trials`: what each needs, in the order in which they are handed out; `most`: the job's own limit."""
        self._searcher, self._cluster, self._most = searcher, cluster, most
        self._left = dict(trials)
        self._looked = self._held = time.monotonic()
        self._admit()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks in a state that is never read again

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked > INTERVAL:
            self._admit()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        if self._left.pop(str(trial), None) is None and self._left:
            self._left.popitem()  # one of those that a searcher chose, which had no name before

    def _admit(self) -> None:
        """
        Raises:
            ClusterLost: for a minute the cluster could have held nothing of what is left.
        """
        self._looked = time.monotonic()
        left = list(self._left.values())
        # One runs, or waits, in any case: a limit of 0 would mean none to Tune.
        together = max(self._cluster.together(left, AHEAD), 1)
        self._searcher.max_concurrent = min(together, self._most or together)
        if not left or any(self._cluster.could_hold(left)):
            self._held = self._looked
        elif self._looked - self._held > LOST:
            raise ClusterLost(
                f"for {LOST:.0f} s the cluster has had no node for any of the {len(left)} trials that are left "
                f"({left[0]}). Go on when it has one again: the same command with --resume"
            )
