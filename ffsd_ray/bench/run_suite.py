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
    failed = {name for name, found in record.points.items() if "error" in found}
    open_points = [point for point in points if point.name not in record.points or point.name in failed]
    unmeasured = []
    with SubprocessRunner() as apart:
        for point in sorted(open_points, key=lambda point: point.name in failed):
            left = None if budget is None else budget - (time.monotonic() - began)
            if left is not None and left <= 0:
                unmeasured.append(point.name)
                continue
            seconds = min((value for value in (left, limit) if value is not None), default=None)
            started = time.monotonic()
            try:
                found = apart.run(point.measure, seconds)
            except TimeoutError as error:
                if seconds == left:  # not the point's fault
                    unmeasured.append(point.name)
                    say(point.name, "not measured: the budget is spent")
                    continue
                found = {"error": str(error)}
            except Failed as error:
                found = {"error": str(error)}
            if "error" in found:
                apart.end()
            took = time.monotonic() - started
            record.add(point.name, {"seconds": took, **found})
            say(point.name, f"failed: {found['error']}" if "error" in found else f"measured in {took:.0f} s")
    return unmeasured
