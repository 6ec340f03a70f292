"""The records of one trial."""

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import nn

from ffsd_ray.errors import DamagedRecords, MissingRecords
from ffsd_ray.records.checkpoint import fits
from ffsd_ray.records.checkpoint_folder import CheckpointFolder
from ffsd_ray.records.schemas import ENVIRONMENT, FAILURE, HISTORY, RESULT, SKIPPED, SPEC
from ffsd_ray.records.store import Store
from ffsd_ray.series import HistoryRow
from ffsd_ray.stamp import KEY, blank, check_stamp, stamped, stamped_json, trial_owner, unstamped_json

State = Literal["completed", "failed", "unfinished"]

#: The deployed network's weights at its best epoch and at the last.
MODEL_BEST, MODEL_LAST = "model_best.safetensors", "model_last.safetensors"


def _history(content: bytes) -> Any:
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    return HISTORY.checked([{key: value for key, value in row.items() if value is not None} for row in rows])


#: What reads each file, raising `SchemaError` where it is not as it should be; and what kind of file it is.
_FORMATS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "spec.json": (partial(unstamped_json, shape=SPEC), "JSON"),
    "environment.json": (partial(unstamped_json, shape=ENVIRONMENT), "JSON"),
    "skipped.json": (partial(unstamped_json, shape=SKIPPED), "JSON"),
    "history.parquet": (_history, "Parquet"),
    "provisional_result.json": (partial(unstamped_json, shape=RESULT), "JSON"),
    "result.json": (partial(unstamped_json, shape=RESULT), "JSON"),
    "error.json": (partial(unstamped_json, shape=FAILURE), "JSON"),
    MODEL_BEST: (safetensors.torch.load, "safetensors"),
    MODEL_LAST: (safetensors.torch.load, "safetensors"),
}

#: The files that a trial has, beside its result, which a scheduler has stopped; and one that came to its end.
_FILES_OF_STOPPED = ("spec.json", "environment.json", "history.parquet")
_FILES_OF_COMPLETED = (*_FILES_OF_STOPPED, MODEL_BEST, MODEL_LAST)


class TrialRecords:
    """Spec, environment, skipped images, history, result or error (a file each), checkpoints/ and exported weights.

    Each file has a stamp (`ffsd_ray.stamp`) with the trial's identity, which is the folder's name. What reads
    one raises DamagedRecords where it has changed since it was written, or was written for another trial.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.checkpoints = CheckpointFolder(store.child("checkpoints"), self._owner)

    @property
    def identity(self) -> str:
        return self.store.name

    def state(self) -> State:
        """The trial's state. Failed trials are retried on resume.

        A result that is damaged, or another trial's, is none.
        """
        with contextlib.suppress(DamagedRecords):
            self.result()
            return "completed"
        return "failed" if self.store.exists("error.json") else "unfinished"

    def spec(self) -> dict[str, Any]:
        return self._read_object("spec.json")

    def environment(self) -> dict[str, Any]:
        return self._read_object("environment.json")

    def result(self) -> dict[str, Any]:
        return self._read_object("result.json")

    def error(self) -> dict[str, Any]:
        return self._read_object("error.json")

    def begin(self, spec: Mapping[str, Any], environment: Mapping[str, Any], skipped: Sequence[str] = ()) -> None:
        """Write what is run, where, and without which images; an earlier attempt's error is forgotten."""
        self._write("spec.json", spec)
        self._write("environment.json", environment)
        if skipped:
            self._write("skipped.json", {"images": skipped})
        elif self.store.exists("skipped.json"):
            self.store.delete("skipped.json")
        self.forget_error()

    def forget_error(self) -> None:
        if self.store.exists("error.json"):
            self.store.delete("error.json")

    def write_provisional(self, result: Mapping[str, Any]) -> None:
        """Write what the result would be if the trial ended now."""
        self._write("provisional_result.json", result)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; the trial counts as completed from here on. `ended` in it says how."""
        self._write("result.json", result)
        if self.store.exists("provisional_result.json"):
            self.store.delete("provisional_result.json")

    def stop(self) -> None:
        """End the trial early: its provisional result becomes its result."""
        standing = self._read_object("provisional_result.json")
        self.finish(standing | {"ended": f"stopped at {standing['last']['epoch']}"})

    def fail(self, kind: str, message: str, details: str = "") -> None:
        """Write why the trial ended without a result; `details`: what is too long for a message."""
        self._write("error.json", {"kind": kind, "message": message, "details": details})

    def copy_from(self, other: "TrialRecords", run: str) -> bool:
        """Copy another run's records of this trial, if they are complete; whether they are.

        Raises:
            DamagedRecords: they are damaged; nothing of them has been written here.
        """
        try:
            result = other.result()
        except MissingRecords:
            return False
        if result.get("ended") != "completed":
            return False
        other.history_of(result)
        names = [*_FILES_OF_COMPLETED, *(["skipped.json"] if other.store.exists("skipped.json") else [])]
        for name, content in {name: other._read_bytes(name) for name in names}.items():
            self.store.write(name, content)
        self.finish(result | {"reused": run})
        return True

    def missing_weights(self) -> list[str]:
        """The names of the weights files that are not there."""
        return [name for name in (MODEL_BEST, MODEL_LAST) if not self.store.exists(name)]

    def was_stopped(self) -> bool:
        """Whether a completed trial was ended by a scheduler, and so has no weights. Not so of a damaged result."""
        with contextlib.suppress(DamagedRecords):
            return _stopped(self.result())
        return False

    def history(self) -> list[HistoryRow]:
        """The rows so far, by epoch; none where no epoch has ended."""
        return self._read_rows() if self.store.exists("history.parquet") else []

    def history_of(self, result: Mapping[str, Any]) -> list[HistoryRow]:
        """The rows up to the last that this trial's `result` has.

        Raises:
            DamagedRecords: they do not end with that one; MissingRecords: there is no history.
        """
        rows, last = self._read_rows(), result["last"]
        if _stopped(result):  # the process may have gone on for an epoch
            rows = rows[: int(last["epoch"])]
        if not rows or _comparable(rows[-1]) != _comparable(last):
            raise self.store.damaged("history.parquet", "expected as its last row what result.json has as `last`")
        return rows

    def epochs_done(self) -> int:
        """Rows of the history; none where it is damaged: training goes on without it, and writes it anew."""
        with contextlib.suppress(DamagedRecords):
            return len(self.history())
        return 0

    def last_measured(self, column: str) -> float:
        """A column's value after the last epoch.

        Raises:
            DamagedRecords: the history has no such column.
        """
        rows = self.history()
        if not rows or column not in rows[-1]:
            raise self.store.damaged("history.parquet", f"expected a column {column}")
        return rows[-1][column]

    def last_weights(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """The deployed network's weights after the last epoch, from MODEL_LAST.

        Raises:
            DamagedRecords: it is not such a `network`.
        """
        weights: dict[str, torch.Tensor] = self._read(MODEL_LAST)
        if not fits(network, weights):
            raise self.store.damaged(MODEL_LAST, "expected the weights of this trial's network")
        return weights

    def write_history(self, rows: Sequence[HistoryRow]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)  # not every epoch is evaluated
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        content = io.BytesIO()
        with pq.ParquetWriter(content, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({KEY: blank(self._owner)})
        self.store.write("history.parquet", stamped(content.getbuffer()))

    def check(self, name: str) -> None:
        """Check that a file, by its path in the folder, is as it was written for this trial.

        Raises:
            DamagedRecords: it is not; MissingRecords: there is no such file.
        """
        folder, _, last = name.rpartition("/")
        if folder:
            self.checkpoints.load(last)
        else:
            self._read(last)

    def files(self) -> list[str]:
        """Paths in the folder of the files that are there, and of those that a completed trial must have."""
        existing = [name for name in self.store.names() if name in _FORMATS]
        needed: tuple[str, ...] = ()
        with contextlib.suppress(DamagedRecords):
            needed = _FILES_OF_STOPPED if _stopped(self.result()) else _FILES_OF_COMPLETED
        return [*dict.fromkeys([*existing, *needed]), *(f"checkpoints/{name}" for name in self.checkpoints.names())]

    def foreign_files(self) -> list[str]:
        """Paths of foreign files, and of files that a killed process left half written."""
        foreign = [name for name in self.store.names() if name not in _FORMATS and name != "checkpoints"]
        return foreign + [f"checkpoints/{name}" for name in self.checkpoints.foreign_names()]

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        self.store.write(name, stamped_json(content, self._owner))

    def _read(self, name: str) -> Any:
        read, kind = _FORMATS[name]
        return self.store.parsed(name, lambda content: read(self._checked(content)), kind)

    def _read_object(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = self._read(name)
        return content

    def _read_rows(self) -> list[HistoryRow]:
        rows: list[HistoryRow] = self._read("history.parquet")
        return rows

    def _read_bytes(self, name: str) -> bytes:
        """Read a file and check its stamp."""
        read, kind = _FORMATS[name]

        def unchanged(content: bytes) -> bytes:
            read(self._checked(content))
            return content

        return self.store.parsed(name, unchanged, kind)

    def _checked(self, content: bytes) -> bytes:
        """Check a file's content. Raises SchemaError where it is not what was written for this trial."""
        check_stamp(content, self._owner)
        return content

    @property
    def _owner(self) -> str:
        return trial_owner(self.identity)


def _stopped(result: Mapping[str, Any]) -> bool:
    """Whether a scheduler has ended the trial of this result."""
    return str(result.get("ended")).startswith("stopped at ")


def _comparable(row: HistoryRow) -> str:
    """A row as text: numbers that are not finite are equal, and so are 1 and 1.0."""
    return json.dumps({key: float(value) for key, value in row.items()}, sort_keys=True)
