"""A page that keeps up with a run: python -m ffsd_ray.report RUN --html FILE --watch."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ffsd_ray.records.driver_lock import WATCH, DriverObserver
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial
from ffsd_ray.terminal import Screen

#: Seconds between two looks at the records, and by how much longer than it took to write the page: of a machine that
#: trains it gets little.
_PAUSE, _SHARE = 5.0, 5
#: Seconds without a sign of life after which a process on another machine counts as gone: its storage may have been
#: away for a while.
_SILENCE = 600.0
#: The files that a page is made from, besides which there are checkpoints and signs of life.
_SHOWN = (".json", ".parquet")
_NOT_SHOWN = "driver.json"


def watch(
    run: RunRecords,
    write: Callable[[bool], tuple[Path, Sequence[Trial]]],
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Write the page of a run, and again whenever its records have changed, until no process trains it any more.

    `write`: writes the page, one that loads itself again where it is told True, and returns its file and the trials
    that are on it. Interrupted, it is written once more, as one that stays as it is. Of a process on another machine
    that was killed nothing is known but that it is silent: this ends after `_SILENCE` seconds of it, and says so.
    """
    screen, seen, driver = Screen(), None, DriverObserver(run.store, clock)
    try:
        with screen.status("reading the records") as status:
            while True:
                # Looked at first: what is read after the end is all that there will be.
                silence, began = driver.silence(), clock()
                goes_on = silence is not None and silence < _SILENCE
                if (state := _state(run)) != seen or not goes_on:
                    page, trials = write(goes_on)
                    seen, written = state, time.strftime("%H:%M:%S")
                if not goes_on:
                    break
                status.update(
                    f"{page}: {_counts(trials)}, written at {written}; {_quiet(driver, silence)}Ctrl-C ends this"
                )
                wait(max(_PAUSE, _SHARE * (clock() - began)))
    except KeyboardInterrupt:
        if seen is not None:
            write(False)
        raise
    print(page)
    if silence is not None:
        print(
            f"{run.store.location}: no sign of life from {driver.who} for {_SILENCE / 60:.0f} minutes, so this has "
            "ended; where the run goes on, start it again",
            file=sys.stderr,
        )


def _quiet(driver: DriverObserver, silence: float | None) -> str:
    """What is said of a process that was to have shown a sign of life."""
    if silence is None or silence < WATCH:
        return ""
    return f"no sign of life from {driver.who} for {silence:.0f} s; "


def _state(run: RunRecords) -> dict[str, int]:
    """When each file that the page is made from was written."""
    return {
        name: written for name, written in run.store.written().items() if name.endswith(_SHOWN) and name != _NOT_SHOWN
    }


def _counts(trials: Sequence[Trial]) -> str:
    states = Counter(trial.state for trial in trials)
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "no trials yet"
