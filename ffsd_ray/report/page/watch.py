"""A page that keeps up with a run: python -m ffsd_ray.report RUN --html FILE --watch."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ffsd_ray.records.driver_lock import is_driven
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial
from ffsd_ray.terminal import Screen

#: Seconds between two looks at the records, and by how much longer than it took to write the page: of a machine that
#: trains it gets little.
_PAUSE, _SHARE = 5.0, 5
#: The files that a page is made from, besides which there are checkpoints and signs of life.
_SHOWN = (".json", ".parquet")
_NOT_SHOWN = "driver.json"


def watch(
    run: RunRecords, write: Callable[[bool], tuple[Path, Sequence[Trial]]], wait: Callable[[float], None] = time.sleep
) -> None:
    """Write the page of a run, and again whenever its records have changed, until no process trains it any more.

    `write`: writes the page, one that loads itself again where it is told True, and returns its file and the trials
    that are on it. Interrupted, it is written once more, as one that stays as it is.
    """
    screen, seen = Screen(), None
    try:
        with screen.status("reading the records") as status:
            while True:
                # Looked at first: what is read after the end is all that there will be.
                goes_on, began = is_driven(run.store), time.monotonic()
                if (state := _state(run)) != seen or not goes_on:
                    page, trials = write(goes_on)
                    seen = state
                    status.update(
                        f"{page}: {_counts(trials)}, written at {time.strftime('%H:%M:%S')}; Ctrl-C ends this"
                    )
                if not goes_on:
                    break
                wait(max(_PAUSE, _SHARE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        if seen is not None:
            write(False)
        raise
    print(page)


def _state(run: RunRecords) -> dict[str, int]:
    """When each file that the page is made from was written."""
    return {
        name: written for name, written in run.store.written().items() if name.endswith(_SHOWN) and name != _NOT_SHOWN
    }


def _counts(trials: Sequence[Trial]) -> str:
    states = Counter(trial.state for trial in trials)
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "no trials yet"
