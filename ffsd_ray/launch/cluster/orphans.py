"""Freeing resources that were reserved by processes which are dead, so that no trial waits for them for ever."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray
from ray import tune
from ray.util import get_placement_group, placement_group_table, remove_placement_group

from ffsd_ray.launch.cluster.capacity import format_resources
from ffsd_ray.launch.ray_internals import PlacementGroupName, actor_is_dead
from ffsd_ray.progress_view import View

#: Seconds between two looks at the cluster's placement groups.
INTERVAL = 2.0
#: Seconds after which a trial that still waits for its workers' resources is reported.
WAITS = 60.0


class OrphanedPlacementGroups(tune.Callback):
    """Removes the placement groups of workers whose controller was killed, and reports trials that wait for resources.

    Ray removes such a group only at the end of the whole job: until then the trial that is begun again, and every other
    one, would wait for the CPUs and GPUs that the dead one has reserved.
    """

    def __init__(self, view: View, labels: Mapping[str, str]) -> None:
        """`labels`: trials' names for people, by identity."""
        self._view, self._labels = view, labels
        self._last_check = time.monotonic()
        #: When each trial was first seen to wait, and of which that has been reported.
        self._waiting: dict[str, float] = {}
        self._reported: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks in a state that is never read again; a view cannot be saved

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._last_check > INTERVAL:
            self._check_groups()
            self._last_check = time.monotonic()

    def _check_groups(self) -> None:
        waiting = set()
        for group in placement_group_table().values():
            name = PlacementGroupName.parsed(group["name"])
            if name is None or group["state"] == "REMOVED":
                continue
            if actor_is_dead(name.owner):
                self._remove(name)
            elif group["state"] != "CREATED" and name.trial in self._labels:
                waiting.add(name.trial)
                self._report_waiting(name.trial, list(group["bundles"].values()))
        for trial in self._waiting.keys() - waiting:
            del self._waiting[trial]
            self._reported.discard(trial)

    def _remove(self, name: PlacementGroupName) -> None:
        with suppress(ValueError):  # it has just gone, or is another job's
            remove_placement_group(get_placement_group(str(name)))
            if name.trial in self._labels:
                self._view.warned(f"{self._labels[name.trial]}: what its killed processes had reserved is free again")

    def _report_waiting(self, trial: str, workers: list[dict[str, float]]) -> None:
        since = self._waiting.setdefault(trial, time.monotonic())
        if trial in self._reported or time.monotonic() - since < WAITS:
            return
        self._reported.add(trial)
        free, total = ray.available_resources(), ray.cluster_resources()
        request = " + ".join(format_resources(worker) for worker in workers)
        amounts = ", ".join(f"{free.get(key, 0):g} of {total.get(key, 0):g} {key}s" for key in ("CPU", "GPU"))
        self._view.warned(
            f"{self._labels[trial]}: has waited {WAITS:.0f} s for {request}; free in the whole cluster: {amounts}. The "
            "rest is in use, by other trials or by other jobs on this cluster; it goes on once there is enough"
        )
