"""Running a function of tensors as CUDA graphs, so that the host launches once in place of thousands of times.

Where there is no GPU, the tests replay recorded operations in the graphs' place.
"""

from collections import Counter
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ffsd_ray.errors import TrialError, summary
from ffsd_ray.nets.concurrent import side_stream

T = TypeVar("T")

#: Plain calls before a capture, which let libraries choose their kernels and optimisers make their state.
WARM_UP = 3


class _Graph(NamedTuple, Generic[T]):
    graph: torch.cuda.CUDAGraph
    #: The graph's own inputs, and what it writes its results to.
    inputs: list[Tensor]
    results: T


class Replay(Generic[T]):
    """A function captured after a few plain calls and then replayed, as one graph for each combination of input shapes.

    Results of a replay are overwritten by the next one, whatever its shapes: the graphs share their memory. The
    function must not wait for the device, and everything that changes between calls must be in tensors.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._plain_calls = Counter[tuple[torch.Size, ...]]()
        self._graphs: dict[tuple[torch.Size, ...], _Graph[T]] = {}
        # One stream for plain calls and captures: autograd accumulates a gradient on the stream of its first use.
        self._stream = side_stream(0)
        self._memory_pool = torch.cuda.graph_pool_handle()

    @property
    def captured(self) -> bool:
        """Whether there is a graph."""
        return bool(self._graphs)

    def __call__(self, *inputs: Tensor) -> T:
        """Raises TrialError: the function cannot be captured."""
        shapes = tuple(value.shape for value in inputs)
        if shapes not in self._graphs:
            if self._plain_calls[shapes] < WARM_UP:
                self._plain_calls[shapes] += 1
                return self._call_on_side_stream(inputs)
            self._graphs[shapes] = self._capture(inputs)
        graph, graph_inputs, results = self._graphs[shapes]
        for graph_input, value in zip(graph_inputs, inputs, strict=True):
            graph_input.copy_(value, non_blocking=True)
        graph.replay()
        return results

    def _call_on_side_stream(self, inputs: tuple[Tensor, ...]) -> T:
        """Call the function on the stream that will capture it, as the warm-up of a capture requires."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = self._function(*inputs)
        current.wait_stream(self._stream)
        return results

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Graph[T]:
        graph, graph_inputs = torch.cuda.CUDAGraph(), [value.clone() for value in inputs]
        # Other threads, such as one that pins memory, go on with what they do.
        capture = torch.cuda.graph(
            graph, pool=self._memory_pool, stream=self._stream, capture_error_mode="thread_local"
        )
        try:
            with torch.cuda.stream(self._stream), capture:  # a capture that fails does not leave its stream by itself
                results = self._function(*graph_inputs)
        except RuntimeError as error:
            # Going on eagerly would not do: after a failed capture torch's allocator and random generator are in doubt.
            cause = error.__context__ or error  # the end of a failed capture raises an error of its own
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            hint = "set train.execution: eager"
            raise TrialError(f"this trial cannot be captured as a CUDA graph ({summary(cause)}); {hint}") from error
        return _Graph(graph, graph_inputs, results)
