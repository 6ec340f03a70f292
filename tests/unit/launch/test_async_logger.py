"""Handing a run's events to trackers in a thread of their own."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ffsd_ray.launch.tracking.async_logger import AsyncLogger, Watched

from helpers.commands import wait_for


class Tracker:
    """Is busy with a trial's start until nothing waits any more but the end."""

    waiting: Callable[[], list[Any]]

    def __init__(self) -> None:
        self.told: list[str] = []

    def setup(self) -> None:
        pass

    def log_trial_start(self, trial: Any) -> None:
        self.told.append("start")
        wait_for(lambda: self.waiting() == [None], "no events but the end")

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.told.append(f"epoch {iteration}")


def test_after_an_interruption_no_thread_is_left_that_calls_ray() -> None:
    """One that does so after Ray's shutdown ends the process, with status 1 and no message."""
    records: Any = SimpleNamespace(history=list)
    view: Any = SimpleNamespace()
    tracker: Any = Tracker()
    logger = AsyncLogger(
        "a tracker", lambda: tracker, lambda trial: Watched({}, "", "", "", records, "", "student"), view
    )
    tracker.waiting = lambda: list(logger._events.queue)
    trial = SimpleNamespace(trial_id="0")
    logger.setup()
    logger.on_trial_start(0, [], trial)
    logger.on_trial_result(1, [], trial, {"epoch": 1})
    wait_for(lambda: tracker.told == ["start"], "a busy tracker")
    logger.close()
    assert not logger._thread.is_alive()
    assert tracker.told == ["start"], "what waited is left out"
