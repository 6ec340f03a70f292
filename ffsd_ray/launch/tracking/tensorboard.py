"""TensorBoard's event files of a run."""

import contextlib
import io
import re
from typing import Any

from ray.tune.result import TRAINING_ITERATION
from tensorboardX import SummaryWriter
from tensorboardX.record_writer import register_writer_factory

from ffsd_ray.launch.tracking.async_logger import Watched
from ffsd_ray.records.store import Store

#: Seconds in which an epoch reaches its file; an object store gets the whole file each time.
_FLUSH_SECONDS = 20
#: The longest label that is part of a folder's name.
_LONGEST = 160


class TensorBoard:
    """RUN/tensorboard/<label>-<identity>: tags as the records name them, steps are epochs.

    Tune's own logger counts a resumed trial's steps anew, under hashes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store.child("tensorboard")
        self._writers: dict[Watched, SummaryWriter] = {}

    def setup(self) -> None:
        scheme, separator, _ = self._store.location.partition("://")
        if separator:
            register_writer_factory(scheme, _StoreFiles())

    def log_trial_start(self, trial: Watched) -> None:
        self.log_trial_end(trial)
        folder = f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', trial.label)[:_LONGEST]}-{trial.identity[:6]}"
        # The whole history comes again: TensorBoard is to forget what an earlier file says of these steps.
        path = f"{self._store.location}/{folder}"
        self._writers[trial] = SummaryWriter(path, purge_step=1, flush_secs=_FLUSH_SECONDS)

    def log_trial_result(self, iteration: int, trial: Watched, result: dict[str, Any]) -> None:
        for key, value in result.items():
            if key != TRAINING_ITERATION:
                self._writers[trial].add_scalar(key, value, result[TRAINING_ITERATION])

    def log_trial_end(self, trial: Watched, failed: bool = False) -> None:
        if trial in self._writers:
            self._writers.pop(trial).close()

    def on_experiment_end(self, trials: list[Any]) -> None:
        for trial in list(self._writers):
            self.log_trial_end(trial)


class _StoreFiles:
    """Files of tensorboardX on any filesystem that records lie on; its own want a package for each."""

    def open(self, path: str) -> "_StoreFile":
        return _StoreFile(path)

    def directory_check(self, path: str) -> None:
        pass


class _StoreFile:
    """Collects what is written; each flush writes the whole file."""

    def __init__(self, path: str) -> None:
        folder, _, self._name = path.rpartition("/")
        self._store, self._content = Store(folder), io.BytesIO()

    def write(self, content: bytes) -> None:
        self._content.write(content)

    def flush(self) -> None:
        with contextlib.suppress(OSError):  # the next one has all of it again
            self.close()

    def close(self) -> None:
        self._store.write(self._name, self._content.getvalue())
