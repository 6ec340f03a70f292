"""CUDA streams on a machine without a GPU: which operation is on which, and whether it waits for what it reads."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Stream:
    """Knows of every stream up to which of its operations it has waited, its own included."""

    def __init__(self) -> None:
        self.done: dict[Stream, int] = {self: 0}
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)
        self.done = {it: max(self.done.get(it, 0), other.done.get(it, 0)) for it in self.done | other.done}


class StreamOrder(TorchDispatchMode):
    """Refuses an operation that reads what another stream writes, or writes what it uses, without having waited.

    Backward passes are all on the current stream here, where a GPU has each operation on its forward's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.main = self.current = Stream()
        #: By the address of memory: who wrote it last, and who has read it since, each with its operation's number.
        self._written: dict[int, tuple[Stream, int]] = {}
        self._read: dict[int, dict[Stream, int]] = {}

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """In the place of `torch.cuda.stream`."""
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        stream = self.current
        stream.done[stream] += 1
        used = _addresses((args, kwargs))
        given = [(it, value) for it, value in zip(func._schema.arguments, args, strict=False) if it.alias_info]
        changed = _addresses([value for it, value in given if it.alias_info.is_write])
        for address in used:
            self._check(func, *self._written.get(address, (stream, 0)))
            self._read.setdefault(address, {})[stream] = stream.done[stream]
        for address in changed:
            for reader, number in self._read[address].items():
                self._check(func, reader, number)
        results = func(*args, **(kwargs or {}))
        for address in changed | (_addresses(results) - used):
            self._written[address], self._read[address] = (stream, stream.done[stream]), {}
        return results

    def _check(self, func: Any, stream: Stream, number: int) -> None:
        assert self.current.done.get(stream, 0) >= number, f"{func} has not waited for another stream"


def _addresses(tree: object) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def follow_streams(monkeypatch: pytest.MonkeyPatch) -> StreamOrder:
    """Put streams that only keep order in the place of CUDA's; it is kept inside of `with` the result."""
    order = StreamOrder()
    streams: dict[int, Stream] = {}
    monkeypatch.setattr("ffsd_ray.nets.concurrent.side_stream", lambda number: streams.setdefault(number, Stream()))
    monkeypatch.setattr(torch.cuda, "stream", order.on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: order.current)
    return order
