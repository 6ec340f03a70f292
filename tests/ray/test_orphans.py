"""What a killed process had reserved is freed, and who waits for what others hold is told: on a real cluster."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import ray
from ray.util.placement_group import placement_group

from ffsd_ray.launch.cluster import orphans
from ffsd_ray.launch.cluster.orphans import OrphanedPlacementGroups
from ffsd_ray.launch.ray_internals import PlacementGroupName, actor_is_dead

from helpers.commands import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.thorough]

LABELS = {"0123": "ffsd n=2, seed 0", "4567": "dml n=2, seed 0"}


class View:
    """Keeps what a person would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warned(self, message: str) -> None:
        self.told.append(message)


@ray.remote(num_cpus=0)
class Controller:
    """As Ray Train's: reserves what the workers of a trial need."""

    def reserve(self, trial: str | None) -> str:
        owner = str(ray.get_runtime_context().get_actor_id())
        name = str(PlacementGroupName(trial, owner, "1")) if trial else "somebody else's"
        self.group = placement_group([{"CPU": 1}, {"CPU": 1}], name=name)
        return owner


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of two CPUs, without the dashboard that Ray Train's own cleaner asks."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(orphans, "INTERVAL", -1.0)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def started() -> Any:
    """A controller in a process of its own."""
    return cast("Any", Controller).remote()  # by Ray's types a decorated class stays what it was


def free() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


def reserved_and_killed(trial: str | None) -> None:
    controller = started()
    owner = ray.get(controller.reserve.remote(trial))
    wait_for(lambda: free() == 0, "two reserved CPUs")
    ray.kill(controller)
    wait_for(lambda: actor_is_dead(owner), "a dead controller")


def test_what_a_killed_controller_had_reserved_is_free_again(cluster: None) -> None:
    reserved_and_killed("0123")
    assert free() == 0, "Ray by itself frees it at the job's end only"
    view = View()
    watch = OrphanedPlacementGroups(view, LABELS)  # type: ignore[arg-type]
    watch.on_step_begin(0, [])
    wait_for(lambda: free() == 2, "two free CPUs")
    assert view.told == ["ffsd n=2, seed 0: what its killed processes had reserved is free again"]


def test_who_waits_for_what_others_hold_is_told_so_once(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved_and_killed(None)
    waiting = started()
    ray.get(waiting.reserve.remote("4567"))
    view = View()
    watch = OrphanedPlacementGroups(view, LABELS)  # type: ignore[arg-type]
    watch.on_step_begin(0, [])
    assert view.told == [], "not at once"
    monkeypatch.setattr(orphans, "WAITS", 0.0)
    watch.on_step_begin(1, [])
    watch.on_step_begin(2, [])
    assert free() == 0, "what other programs have reserved is theirs"
    [told] = view.told
    assert told.startswith("dml n=2, seed 0: has waited 0 s for 1 CPU + 1 CPU; free in the whole cluster: 0 of 2 CPUs")
