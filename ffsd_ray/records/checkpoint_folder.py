"""The checkpoints of one trial."""

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from ffsd_ray.errors import DamagedRecords
from ffsd_ray.records.checkpoint import CHECKPOINT
from ffsd_ray.records.store import Store, is_unfinished
from ffsd_ray.stamp import blank, check_stamp, stamped

_NAME = re.compile(r"epoch-\d{6}(-step-\d{6})?\.pt")


def _name(epoch: int, steps: int = 0) -> str:
    """The file name of a checkpoint after an epoch, or after some steps of it; names sort by progress."""
    return f"epoch-{epoch:06d}-step-{steps:06d}.pt" if steps else f"epoch-{epoch:06d}.pt"


class CheckpointFolder:
    """A trial's folder of checkpoints (`ffsd_ray.records.checkpoint`), each with the trial's stamp.

    What reads one raises DamagedRecords where it has changed since it was written, or was written for another trial.
    """

    def __init__(self, store: Store, owner: str) -> None:
        """`owner`: the trial, see `ffsd_ray.stamp.trial_owner`."""
        self._store, self._owner = store, owner

    def names(self) -> list[str]:
        """File names of the checkpoints, by progress."""
        return [name for name in self._store.names() if _NAME.fullmatch(name)]

    def foreign_names(self) -> list[str]:
        """Names of other files, and of those that a killed process left half written."""
        return [name for name in self._store.names() if not _NAME.fullmatch(name)]

    def write(self, epoch: int, state: Mapping[str, Any], *, keep_earlier: bool, steps: int = 0) -> None:
        """Write the training state after `epoch`, or after so many `steps` of it; the earlier ones are deleted then.

        With `keep_earlier` those after whole epochs stay.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        with zipfile.ZipFile(content, "a") as archive:
            archive.comment = blank(self._owner).encode()
        self._store.write(_name(epoch, steps), stamped(content.getbuffer()))
        for name in self._store.names():
            earlier = _NAME.fullmatch(name) and name < _name(epoch, steps)
            if (earlier and ("step" in name or not (keep_earlier or steps))) or is_unfinished(name):
                self._store.delete(name)

    def delete_after(self, epoch: int) -> None:
        """Delete the checkpoints after an epoch: training has gone back to it, or to another trial's."""
        for name in self.names():
            if name > _name(epoch):
                self._store.delete(name)

    def latest(self) -> dict[str, Any] | None:
        """The newest training state, tensors on the CPU; None where there is none. Nothing is unpickled but tensors."""
        names = self.names()
        return self.load(names[-1]) if names else None

    def after(self, epoch: int) -> dict[str, Any]:
        """The training state after an epoch, as `latest`. Raises MissingRecords."""
        return self.load(_name(epoch))

    def load(self, name: str) -> dict[str, Any]:
        """The training state in a file, as `latest`. Raises MissingRecords."""

        def read(content: bytes) -> Any:
            check_stamp(content, self._owner)
            return CHECKPOINT.checked(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))

        return self._store.parsed(name, read, "a checkpoint of tensors and plain values")

    def mismatch_error(self, epoch: int | None = None) -> DamagedRecords:
        """The error for a checkpoint, the newest or the one after `epoch`, that holds other networks."""
        name = self.names()[-1] if epoch is None else _name(epoch)
        return self._store.damaged(name, "expected the state of this trial's networks and optimisers")
