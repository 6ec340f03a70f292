"""Population based training: the trial whose state another one continues from.

Tune clones checkpoints that it holds itself. Those of a trial lie in its records, so what Tune holds is where: the
trial's identity and the epoch.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.train.donor import Donor

_FILE = "checkpoint.json"


@contextmanager
def pointer(identity: str, epoch: int) -> Iterator[tune.Checkpoint]:
    """A pointer to a trial's checkpoint after an epoch, which Tune hands to other trials."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _FILE).write_text(json.dumps({"identity": identity, "epoch": epoch}))
        yield tune.Checkpoint(folder)


def donor(config: dict[str, Any]) -> Donor | None:
    """The trial that Tune has this one go on from; None where it is this one.

    `config`: what `train_here` takes; `mutable`, dotted keys that a population changes.
    """
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        pointed_to = json.loads((Path(folder) / _FILE).read_text())
    if pointed_to["identity"] == config["identity"]:
        return None
    records = TrialRecords(Store(config["records"]).parent.child(pointed_to["identity"]))
    spec = TrialSpec.model_validate(config["spec"])
    changed = {dotted: value_at(spec, dotted) for dotted in config["mutable"]}
    return Donor(pointed_to["identity"], records, pointed_to["epoch"], changed)
