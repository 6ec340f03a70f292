"""Networks that do not depend on each other, computed at the same time on a GPU: each on a CUDA stream of its own.

A small network does not fill a GPU, whose streams overlap then, and in a captured step become parallel branches of its
graph. Autograd computes each operation's gradient on the stream of the operation, so the backward passes overlap too.

On an H200 the captured step of three ResNet-32 takes two thirds of its time with one stream, and has the same bits in
every method. The tests follow what is computed, and which stream waits for which, on a CPU.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@cache
def side_stream(number: int) -> torch.cuda.Stream:
    """One of the process's CUDA streams beside its first.

    Trials of one process share them: cuBLAS keeps 32 MiB for every stream that it has been used on, to the end of the
    process.
    """
    return torch.cuda.Stream()


class MemberStreams:
    """The streams of a group's networks, one each; `side_stream(0)` is left to what captures their step."""

    def __init__(self) -> None:
        #: How many of them the pass has used so far: a capture must not wait for a stream that has no part in it.
        self._used = 0
        #: Inputs and results of the networks. The allocator knows a tensor's first stream alone: what is freed while
        #: another one still reads it could be written to, so none is freed before all streams have met again.
        self._crossing: list[object] = []

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Around a forward pass and its backward pass: `concurrently` uses these streams.

        Afterwards the current stream has waited for all of them, so that gradients are complete there.
        """
        global _in_use
        _in_use = self
        try:
            yield
            self._join(torch.cuda.current_stream())
        finally:
            _in_use = None
            self._used = 0
            self._crossing.clear()

    def run(self, calls: Sequence[Callable[[Tensor], T]], inputs: Sequence[Tensor]) -> list[T]:
        """See `concurrently`."""
        current = torch.cuda.current_stream()
        self._used = max(self._used, len(calls))
        results = []
        for number, (call, x) in enumerate(zip(calls, inputs, strict=True), start=1):
            stream = side_stream(number)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                results.append(call(x))
        self._join(current)
        self._crossing += [*inputs, *results]
        return results

    def _join(self, current: torch.cuda.Stream) -> None:
        for number in range(1, self._used + 1):
            current.wait_stream(side_stream(number))


_in_use: MemberStreams | None = None


def concurrently(calls: Sequence[Callable[[Tensor], T]], inputs: Sequence[Tensor]) -> list[T]:
    """Call each of `calls` with its input; return the results in that order.

    Inside of `MemberStreams.in_use` they overlap, and the current stream has waited for them; elsewhere they are done
    one after the other. No call may change what another one uses.
    """
    if _in_use is None or len(calls) == 1:
        return [call(x) for call, x in zip(calls, inputs, strict=True)]
    return _in_use.run(calls, inputs)
