"""Captured steps, with recorded operations in the place of CUDA's graphs (`helpers/recorded_graphs.py`)."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.config.optimisation import can_capture, resolve_execution
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import TrialError
from ffsd_ray.nets.concurrent import MemberStreams
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.train import optimisers
from ffsd_ray.train.cuda_graph import WARM_UP, Replay
from ffsd_ray.train.engine import Engine

from helpers.captured import FORMS, graph_spec
from helpers.comparison import assert_same_end
from helpers.recorded_graphs import RecordedGraph, record_graphs
from helpers.tiers import often
from helpers.workers import train_with

FULL, PARTIAL = torch.arange(4.0), torch.arange(2.0)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    return record_graphs(monkeypatch)


class Summing:
    """A step: adds up what it is given, in place, and returns the sum and the input's squares."""

    def __init__(self) -> None:
        self.total, self.calls = torch.zeros(()), 0

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        self.total += values.sum()
        return self.total.clone(), values.square()


def check(order: list[Tensor], graphs: list[RecordedGraph], *, plain_calls: int, replays: list[int]) -> None:
    """Call a `Replay` with inputs of these shapes: each result is what the plain step gives."""
    function, plain = Summing(), Summing()
    replay = Replay(function)
    for number, like in enumerate(order):
        values = like + number
        for result, expected in zip(replay(values), plain(values), strict=True):
            assert torch.equal(result, expected), number
        assert replay.captured == bool(graphs)
    assert [graph.replays for graph in graphs] == replays
    assert function.calls == plain_calls + len(replays)


def test_what_is_captured_computes_what_the_plain_step_does(graphs: list[RecordedGraph]) -> None:
    check([FULL] * 7, graphs, plain_calls=WARM_UP, replays=[4])


def test_nothing_is_captured_before_the_warm_up_is_over(graphs: list[RecordedGraph]) -> None:
    check([FULL] * WARM_UP, graphs, plain_calls=WARM_UP, replays=[])


def test_a_partial_batch_that_comes_first_does_not_keep_the_others_from_being_captured(
    graphs: list[RecordedGraph],
) -> None:
    """As where a trial is resumed at its last step of an epoch."""
    check([PARTIAL] + [FULL] * 6, graphs, plain_calls=1 + WARM_UP, replays=[3])


def test_every_shape_has_its_graph(graphs: list[RecordedGraph]) -> None:
    check([FULL, PARTIAL] * 6, graphs, plain_calls=2 * WARM_UP, replays=[3, 3])


def test_what_reads_a_value_cannot_be_captured(graphs: list[RecordedGraph]) -> None:
    replay = Replay(lambda values: values * values.sum().item())
    for _ in range(WARM_UP):
        assert torch.equal(replay(FULL), FULL * 6)
    with pytest.raises(TrialError, match=r"operation not permitted .*; set train\.execution: eager"):
        replay(FULL)
    assert not replay.captured


def test_a_capture_that_does_not_fit_in_memory_is_out_of_memory(graphs: list[RecordedGraph]) -> None:
    calls: list[Tensor] = []

    def function(values: Tensor) -> Tensor:
        calls.append(values)
        if len(calls) > WARM_UP:
            try:
                raise torch.OutOfMemoryError("no room")
            finally:
                raise RuntimeError("the capture was invalidated")  # as the end of a failed capture does
        return values

    replay = Replay(function)
    for _ in range(WARM_UP):
        replay(FULL)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        replay(FULL)


#: Those that are tried at every change: FFSD, and what clips and anneals; before a merge, what has phases, learns from
#: held-out images or has a leader added. The others take long.
FAST, MERGED = ("ffsd",), ("end2", "regularised", "kdcl general")


def trained(spec: TrialSpec, folder: Path, monkeypatch: pytest.MonkeyPatch, *, captured: bool) -> TrialRecords:
    """Train with a GPU's optimisers, which CPUs have as well, and with steps and predictions captured or not."""
    with monkeypatch.context() as patched:
        patched.setattr("ffsd_ray.train.optimisers.build", partial(optimisers.build, fused=True))
        if captured:
            patched.setattr("ffsd_ray.train.execution.resolve_execution", lambda *_, **__: "graph")
            patched.setattr("ffsd_ray.train.execution.can_capture", lambda **_: True)
        return train_with(spec, folder)


@pytest.mark.parametrize(
    "form",
    [*often(FAST, (*FAST, *MERGED)), *often([], [it for it in FORMS if it not in (*FAST, *MERGED)], others="slow")],
)
def test_captured_training_is_eager_training(
    form: str, graphs: list[RecordedGraph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with everything that changes between steps changing while they are replayed."""
    overlapping: list[int] = []
    run = MemberStreams.run

    def counted(streams: MemberStreams, calls: Any, inputs: Any) -> list[Any]:
        overlapping.append(len(calls))
        return run(streams, calls, inputs)

    monkeypatch.setattr(MemberStreams, "run", counted)
    spec = graph_spec(form)
    eager = trained(spec, tmp_path / "eager", monkeypatch, captured=False)
    assert not graphs
    assert not overlapping
    captured = trained(spec, tmp_path / "captured", monkeypatch, captured=True)
    assert eager.result()["execution"] == {"as": "eager", "captured": False}
    assert captured.result()["execution"] == {"as": "graph", "captured": True}
    assert_same_end(eager, captured)
    replays = [graph.replays for graph in graphs]
    assert replays[0] == 7, "full batches of training, of which there are 10"
    assert len(replays) >= 4, "full and partial batches, in training and in evaluation"
    assert min(replays) >= 2
    assert set(overlapping) == {3} or form != "ffsd", "two students and the leader"


def test_elastic_steps_are_not_captured_and_do_not_say_so(
    graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffsd_ray.train.execution.resolve_execution", partial(resolve_execution, cuda=True))
    monkeypatch.setattr("ffsd_ray.train.execution.can_capture", partial(can_capture, cuda=True))
    plain = graph_spec("baseline")
    spec = plain.changed(scale=plain.scale.changed(workers={"max": 1}))
    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    for epoch in (1, 2):
        engine.begin(epoch)
        list(engine.epoch(epoch, engine.meters()))
    assert (engine.executor.execution, engine.executor.captured, graphs) == ("eager", False, [])
