"""Several workers whose steps are captured, without DDP: two processes joined by gloo, with recorded graphs."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.train import optimisers
from ffsd_ray.train.trainer import train

from helpers.comparison import assert_equal, measured
from helpers.recorded_graphs import record_graphs
from helpers.specs import digits_spec
from helpers.tiers import often
from helpers.workers import Worker, run_workers

#: FFSD reads batch-norm statistics in its steps; AFD has two phases, of which each updates a part of the parameters.
METHODS = ("ffsd", "afd")


def _train(rank: int, workers: int, content: dict[str, Any], folder: Path, captured: bool) -> int:
    """Train with a GPU's optimisers; return how many graphs were made."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ffsd_ray.train.optimisers.build", partial(optimisers.build, fused=True))
        graphs = record_graphs(patched)
        if captured:
            patched.setattr(ScaleSettings, "whole_gpus", True)
            content = content | {"train": content["train"] | {"execution": "graph"}}
        spec, records = TrialSpec.model_validate(content), TrialRecords(Store(str(folder)))
        train(spec, records, Worker(rank, workers, None, noticed=False))
        return len(graphs)


def _both(rank: int, workers: int, content: dict[str, Any], folder: Path) -> None:
    assert not _train(rank, workers, content, folder / "ddp", captured=False)
    assert _train(rank, workers, content, folder / "captured", captured=True)


@pytest.mark.thorough
@pytest.mark.parametrize("name", often(("ffsd",), METHODS, others="slow"))
def test_two_captured_workers_compute_what_two_in_ddp_do(name: str, tmp_path: Path) -> None:
    """Bit for bit; an epoch has two batches of 41 images, of which shares differ, and one of 18, which is captured."""
    spec = digits_spec(
        {"name": name},
        backbone="resnet8",
        data={"train_per_class": 10, "test_per_class": 3},
        workers=2,
        epochs=5,
        batch_size=41,
        steps_per_epoch=None,
    )
    run_workers(2, _both, spec.model_dump(), tmp_path)
    ddp, captured = (TrialRecords(Store(str(tmp_path / how))) for how in ("ddp", "captured"))
    assert ddp.result()["execution"] == {"as": "eager", "captured": False}
    assert captured.result()["execution"] == {"as": "graph", "captured": True}
    assert_equal(ddp.checkpoints.latest(), captured.checkpoints.latest())
    assert measured(ddp.history()) == measured(captured.history())
