"""Networks on CUDA streams of their own: who waits for whom, without a GPU (`helpers/stream_order.py`)."""

import weakref

import pytest
import torch
from torch import Tensor

from ffsd_ray.data.batches import Batch
from ffsd_ray.methods import Method
from ffsd_ray.nets.concurrent import MemberStreams, concurrently
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.step import Step

from helpers.specs import digits_spec
from helpers.stream_order import Stream, StreamOrder, follow_streams


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> StreamOrder:
    return follow_streams(monkeypatch)


def stepped(name: str, streams: MemberStreams | None, order: StreamOrder) -> tuple[Method, dict[str, Stream]]:
    """A group after two steps, and the stream of each network."""
    spec = digits_spec({"name": name}, backbone="resnet8", precision="bf16")
    method = build_method(spec, 10, 8)
    method.begin_epoch(1)
    step = Step(method, optimisers.build(method, spec.train), streams=streams)
    stream_of: dict[str, Stream] = {}
    for member, network in method.networks.items():
        network.register_forward_hook(lambda *_, member=member: stream_of.__setitem__(member, order.current))
    generator = torch.Generator().manual_seed(0)
    with order:
        for _ in range(2):
            images = [torch.randn(4, 3, 8, 8, generator=generator) for _ in range(method.views)]
            step(Batch(images, torch.arange(4), 1.0))
    return method, stream_of


@pytest.mark.parametrize("name", ["ffsd", "dml", "kdcl"])
def test_networks_compute_between_their_fork_and_their_join(name: str, order: StreamOrder) -> None:
    """Nothing is read before it is there, the losses' networks neither, and the bits are those of one stream."""
    method, stream_of = stepped(name, MemberStreams(), order)
    assert len({order.main, *stream_of.values()}) == 1 + len(method.networks), "each has its own, none the main one"
    assert set(order.main.waited_for) == set(stream_of.values())
    plain, on_main = stepped(name, None, order)
    assert set(on_main.values()) == {order.main}
    for (key, value), other in zip(method.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("forgotten", ["fork", "join"])
def test_a_wait_that_is_forgotten_is_noticed(
    forgotten: str, order: StreamOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Stream.wait_stream

    def wait_stream(stream: Stream, other: Stream) -> None:
        if (stream is order.main) != (forgotten == "join"):
            wait(stream, other)

    monkeypatch.setattr(Stream, "wait_stream", wait_stream)
    with pytest.raises(AssertionError, match="has not waited for another stream"):
        stepped("dml", MemberStreams(), order)


def test_what_crosses_streams_lives_until_they_have_met(order: StreamOrder) -> None:
    """Also what nothing else refers to any more: its memory would be given to its first stream's next operation."""
    with MemberStreams().in_use():
        inputs: list[Tensor] = [torch.ones(2), torch.ones(3)]
        results = concurrently([torch.neg, torch.exp], inputs)
        crossing = [weakref.ref(tensor) for tensor in (*inputs, *results)]
        del inputs, results
        assert all(tensor() is not None for tensor in crossing)
    assert not any(tensor() is not None for tensor in crossing)


def test_only_streams_of_the_same_pass_are_waited_for(order: StreamOrder) -> None:
    """A capture cannot wait for a stream that has no part in it."""
    streams, x = MemberStreams(), torch.ones(2)
    with streams.in_use():
        concurrently([torch.neg, torch.exp, torch.abs], [x] * 3)
    first = set(order.main.waited_for)
    order.main.waited_for.clear()
    with streams.in_use():
        concurrently([torch.neg, torch.exp], [x] * 2)
    assert set(order.main.waited_for) < first
