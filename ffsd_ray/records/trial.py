"""The records of one trial."""

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import nn

from ffsd_ray.errors import DamagedRecords
from ffsd_ray.records.checkpoint import CHECKPOINT, fits
from ffsd_ray.records.formats import ENVIRONMENT, FAILURE, HISTORY, RESULT, SKIPPED, SPEC, Row
from ffsd_ray.records.store import Store, is_unfinished

State = Literal["completed", "failed", "unfinished"]

#: The deployed network's weights at its best epoch and at the last.
LEADER_BEST, LEADER_LAST = "leader_best.safetensors", "leader_last.safetensors"

_CHECKPOINT = re.compile(r"epoch-\d{6}(-step-\d{6})?\.pt")


def _history(content: bytes) -> Any:
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    return HISTORY.checked([{key: value for key, value in row.items() if value is not None} for row in rows])


def _checkpoint(content: bytes) -> Any:
    return CHECKPOINT.checked(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


#: What reads each file, raising `Unlike` where it is not as it should be; and what kind of file it is.
_FORMATS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "spec.json": (SPEC.json, "JSON"),
    "environment.json": (ENVIRONMENT.json, "JSON"),
    "skipped.json": (SKIPPED.json, "JSON"),
    "history.parquet": (_history, "Parquet"),
    "standing.json": (RESULT.json, "JSON"),
    "result.json": (RESULT.json, "JSON"),
    "error.json": (FAILURE.json, "JSON"),
    LEADER_BEST: (safetensors.torch.load, "safetensors"),
    LEADER_LAST: (safetensors.torch.load, "safetensors"),
}


def _checkpoint_name(epoch: int, steps: int = 0) -> str:
    """After an epoch, or after so many steps of it; names sort by how far training has come."""
    return f"epoch-{epoch:06d}-step-{steps:06d}.pt" if steps else f"epoch-{epoch:06d}.pt"


class TrialRecords:
    """Spec, environment, skipped images, history, result or error (a file each), checkpoints/ and exported weights."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._checkpoints = store.child("checkpoints")

    def state(self) -> State:
        """`failed` is what a retry or a resumed job turns into something else again."""
        if self.store.exists("result.json"):
            return "completed"
        return "failed" if self.store.exists("error.json") else "unfinished"

    def spec(self) -> dict[str, Any]:
        return self._read("spec.json")

    def environment(self) -> dict[str, Any]:
        return self._read("environment.json")

    def result(self) -> dict[str, Any]:
        return self._read("result.json")

    def error(self) -> dict[str, Any]:
        return self._read("error.json")

    def begin(self, spec: Mapping[str, Any], environment: Mapping[str, Any], skipped: Sequence[str] = ()) -> None:
        """Write what is run, where, and without which images; an earlier attempt's error is forgotten."""
        self.store.write_json("spec.json", spec)
        self.store.write_json("environment.json", environment)
        if skipped:
            self.store.write_json("skipped.json", skipped)
        elif self.store.exists("skipped.json"):
            self.store.delete("skipped.json")
        self.forget_error()

    def forget_error(self) -> None:
        if self.store.exists("error.json"):
            self.store.delete("error.json")

    def stand(self, result: Mapping[str, Any]) -> None:
        """Write what the result would be if the trial ended now."""
        self.store.write_json("standing.json", result)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; the trial counts as completed from here on. `ended` in it says how."""
        self.store.write_json("result.json", result)
        if self.store.exists("standing.json"):
            self.store.delete("standing.json")

    def stop(self) -> None:
        """A scheduler has ended the trial: as it stands is its result."""
        standing = self._read("standing.json")
        self.finish(standing | {"ended": f"stopped at {standing['last']['epoch']}"})

    def fail(self, kind: str, message: str, details: str = "") -> None:
        """Write why the trial ended without a result; `details`: what is too long for a message."""
        self.store.write_json("error.json", {"kind": kind, "message": message, "details": details})

    def take(self, other: "TrialRecords", run: str) -> bool:
        """Become a copy of another run's records of this trial, if it has trained to its end there; whether it has.

        Raises:
            DamagedRecords: they are damaged; nothing of them has been written here.
        """
        if other.state() != "completed" or (result := other.result()).get("ended") != "completed":
            return False
        names = ["spec.json", "environment.json", "history.parquet", LEADER_BEST, LEADER_LAST]
        names += ["skipped.json"] if other.store.exists("skipped.json") else []
        for name, content in {name: other._sound(name) for name in names}.items():
            self.store.write(name, content)
        self.finish(result | {"reused": run})
        return True

    def missing_weights(self) -> list[str]:
        """The names of the weights files that are not there."""
        return [name for name in (LEADER_BEST, LEADER_LAST) if not self.store.exists(name)]

    def was_stopped(self) -> bool:
        """Whether a completed trial was ended by a scheduler, and so has no weights. Not so of a damaged result."""
        with contextlib.suppress(DamagedRecords):
            return str(self.result().get("ended")).startswith("stopped at ")
        return False

    def history(self) -> list[Row]:
        """The rows so far, by epoch; none where no epoch has ended."""
        return self._read("history.parquet") if self.store.exists("history.parquet") else []

    def epochs_done(self) -> int:
        """As many as the history has; none where it is damaged: training goes on without it, and writes it anew."""
        with contextlib.suppress(DamagedRecords):
            return len(self.history())
        return 0

    def last_measured(self, column: str) -> float:
        """After the last epoch.

        Raises:
            DamagedRecords: the history has no such column.
        """
        rows = self.history()
        if not rows or column not in rows[-1]:
            raise self.store.damaged("history.parquet", f"expected a column {column}")
        return rows[-1][column]

    def last_weights(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """Of the deployed network, from LEADER_LAST.

        Raises:
            DamagedRecords: it is not such a `network`.
        """
        weights: dict[str, torch.Tensor] = self._read(LEADER_LAST)
        if not fits(network, weights):
            raise self.store.damaged(LEADER_LAST, "expected the weights of this trial's network")
        return weights

    def write_history(self, rows: Sequence[Row]) -> None:
        with self.store.writing("history.parquet") as stream:
            pq.write_table(pa.Table.from_pylist(list(rows)), stream)

    def write_checkpoint(self, epoch: int, state: Mapping[str, Any], *, keep_earlier: bool, steps: int = 0) -> None:
        """Write the training state after `epoch`, or after so many `steps` of it; the earlier ones are deleted then.

        With `keep_earlier` those after whole epochs stay.
        """
        with self._checkpoints.writing(_checkpoint_name(epoch, steps)) as stream:
            torch.save(dict(state), stream)
        for name in self._checkpoints.names():
            earlier = _CHECKPOINT.fullmatch(name) and name < _checkpoint_name(epoch, steps)
            if (earlier and ("step" in name or not (keep_earlier or steps))) or is_unfinished(name):
                self._checkpoints.delete(name)

    def give_up_after(self, epoch: int) -> None:
        """Delete the checkpoints after an epoch: training has gone back to it, or to another trial's."""
        for name in self._checkpoint_names():
            if name > _checkpoint_name(epoch):
                self._checkpoints.delete(name)

    def latest_checkpoint(self) -> dict[str, Any] | None:
        """The newest training state, tensors on the CPU; None where there is none. Nothing is unpickled but tensors."""
        names = self._checkpoint_names()
        return self._load(names[-1]) if names else None

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """The training state after an epoch, as `latest_checkpoint`. Raises MissingRecords."""
        return self._load(_checkpoint_name(epoch))

    def misfit(self, epoch: int | None = None) -> DamagedRecords:
        """What to raise where a checkpoint, the newest or the one after `epoch`, is of other networks."""
        name = self._checkpoint_names()[-1] if epoch is None else _checkpoint_name(epoch)
        return self._checkpoints.damaged(name, "expected the state of this trial's networks and optimisers")

    def _read(self, name: str) -> Any:
        return self.store.parsed(name, *_FORMATS[name])

    def _sound(self, name: str) -> bytes:
        """A file as it is, if nothing is wrong with it."""
        read, kind = _FORMATS[name]

        def unchanged(content: bytes) -> bytes:
            read(content)
            return content

        return self.store.parsed(name, unchanged, kind)

    def _load(self, name: str) -> dict[str, Any]:
        return self._checkpoints.parsed(name, _checkpoint, "a checkpoint of tensors and plain values")

    def _checkpoint_names(self) -> list[str]:
        return [name for name in self._checkpoints.names() if _CHECKPOINT.fullmatch(name)]
