"""Measuring a suite's points within a budget, what is already in the record left out."""

import time
from collections.abc import Callable, Sequence

from ffsd_ray.bench.measure.subprocess_runner import Failed, SubprocessRunner
from ffsd_ray.bench.record import Record
from ffsd_ray.bench.suites import Point


def run_suite(
    points: Sequence[Point],
    record: Record,
    *,
    budget: float | None,
    limit: float | None,
    say: Callable[[str, str], None],
) -> list[str]:
    """Names of the points that the `budget` (seconds; None: any) left unmeasured.

    Each point that is done is written at once. One that fails or takes longer than `limit` seconds has its `error`
    there; those that failed before are tried again, after all others. `say` is told each point and what came of it.
    """
    began = time.monotonic()
    failed = {name for name, figures in record.points.items() if "error" in figures}
    open_points = [point for point in points if point.name not in record.points or point.name in failed]
    unmeasured = []
    with SubprocessRunner() as subprocess:
        for point in sorted(open_points, key=lambda point: point.name in failed):
            left = None if budget is None else budget - (time.monotonic() - began)
            if left is not None and left <= 0:
                unmeasured.append(point.name)
                continue
            seconds = min((value for value in (left, limit) if value is not None), default=None)
            started = time.monotonic()
            try:
                figures = subprocess.run(point.measure, seconds)
            except TimeoutError as error:
                if seconds == left:  # not the point's fault
                    unmeasured.append(point.name)
                    say(point.name, "not measured: the budget is spent")
                    continue
                figures = {"error": str(error)}
            except Failed as error:
                figures = {"error": str(error)}
            if "error" in figures:
                subprocess.end()
            took = time.monotonic() - started
            record.add(point.name, {"seconds": took, **figures})
            say(point.name, f"failed: {figures['error']}" if "error" in figures else f"measured in {took:.0f} s")
    return unmeasured
