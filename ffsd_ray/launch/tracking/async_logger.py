"""Handing Tune's events to a service that may be slow, or away, without holding up a trial."""

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ray import tune
from ray.tune.result import TRAINING_ITERATION

from ffsd_ray.credentials import hidden
from ffsd_ray.launch.causes import cause_of
from ffsd_ray.progress_view import View
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow

#: Seconds that the end of a run waits for a service to take what it has not yet taken.
PATIENCE = 60
#: Seconds for which a run that ends at once, or has waited already, lets a service finish what it has begun.
_LAST_EVENT = 10
#: Events that wait for a service; what comes on top of them is lost to it.
WAITING = 10_000
#: A row's measurements that are of no split, term or weight.
_COLUMNS_WITHOUT_SPLIT = ("lr", "seconds", "images_per_second", "workers")


@dataclass(frozen=True, eq=False)
class Watched:
    """A trial with the attributes that Ray's callbacks read, saying what a person should see in Tune's place."""

    config: dict[str, Any]
    job: str
    label: str
    identity: str
    records: TrialRecords
    local_path: str
    #: The series that stands for its method.
    primary_series: str

    def __str__(self) -> str:
        return self.label

    @property
    def trial_id(self) -> str:
        """The tracker's id of this trial in this run's folder: a resumed trial keeps its id."""
        return hashlib.sha256(self.records.store.location.encode()).hexdigest()[:16]

    @property
    def experiment_dir_name(self) -> str:
        return self.job


class Watcher(Protocol):
    """The part of Ray's logger callbacks that is used. A result's `training_iteration` is the epoch."""

    def setup(self) -> None: ...

    def log_trial_start(self, trial: Any) -> None: ...

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None: ...

    def log_trial_end(self, trial: Any, failed: bool = False) -> None: ...

    def on_experiment_end(self, trials: list[Any]) -> None: ...


class AsyncLogger(tune.Callback):
    """Calls a watcher from a separate thread. A trial that starts is sent with the epochs in its records."""

    def __init__(
        self, name: str, make: Callable[[], Watcher], watched_trial: Callable[[Any], Watched], view: View
    ) -> None:
        """`name`: of the service, for messages; `make`: makes the watcher; `watched_trial`: converts a Tune trial."""
        self._name, self._make, self._watched_trial, self._view = name, make, watched_trial, view
        self._trials: dict[str, Watched] = {}
        self._sent: dict[Watched, int] = {}
        self._events: queue.Queue[Callable[[Watcher], None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the view's: never read again

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        watched = self._trials.setdefault(trial.trial_id, self._watched_trial(trial))
        self._put(lambda watcher: self._start(watcher, watched))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            watched, row = self._trials[trial.trial_id], dict(result)
            self._put(lambda watcher: self._send(watcher, watched, row))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, failed=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._put(lambda watcher: watcher.on_experiment_end([]))
        self._put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._warn(f"has not taken everything {PATIENCE} s after the end")

    def close(self) -> None:
        """End the thread; what it has not begun with is left out.

        It makes calls to Ray, which would end the whole process, without a word, once Ray is shut down.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join(_LAST_EVENT)

    def _end(self, trial: Any, *, failed: bool) -> None:
        watched = self._trials.pop(trial.trial_id, None)
        if watched is not None:
            failed = failed or watched.records.state() == "failed"
            self._put(lambda watcher: watcher.log_trial_end(watched, failed=failed))

    def _put(self, event: Callable[[Watcher], None] | None) -> None:
        if not self._thread.is_alive():
            return  # it could not begin, and has said so
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._warn("takes epochs more slowly than they come, and some are left out")

    def _work(self) -> None:
        try:
            watcher = self._make()
            watcher.setup()
        except Exception as error:
            self._warn(cause_of(error).rstrip(": ."))
            return
        while (event := self._events.get()) is not None:
            try:
                event(watcher)
            except Exception as error:
                self._warn(cause_of(error).rstrip(": ."))

    def _start(self, watcher: Watcher, watched: Watched) -> None:
        self._sent[watched] = 0
        watcher.log_trial_start(watched)
        for row in watched.records.history():
            self._send(watcher, watched, row)

    def _send(self, watcher: Watcher, watched: Watched, row: HistoryRow) -> None:
        epoch = int(row["epoch"])
        if epoch > self._sent[watched]:  # else it was in the history, or a worker that was replaced reports it again
            self._sent[watched] = epoch
            measured = {key: value for key, value in row.items() if "/" in key or key in _COLUMNS_WITHOUT_SPLIT}
            # Under one name for every method, so that they can be compared.
            primary = {
                f"{split}/primary/top1": row[column]
                for split in ("test", "val")
                if (column := f"{split}/{watched.primary_series}/top1") in row
            }
            watcher.log_trial_result(epoch, watched, {**measured, **primary, TRAINING_ITERATION: epoch})

    def _warn(self, message: str) -> None:
        """Say so once: a service that is away is so at every epoch."""
        if not self._warned:
            self._warned = True
            warning = f"{self._name}: {hidden(message)}. Training is none the worse; the records have everything."
            self._view.warned(warning)
