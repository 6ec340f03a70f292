"""Running a function of tensors as one CUDA graph, so that the host launches once in place of thousands of times."""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

#: Plain calls before the capture, which let libraries choose their kernels and optimisers make their state.
WARM_UP = 3

_log = logging.getLogger(__name__)


class Replay(Generic[T]):
    """A function captured after a few plain calls, then replayed for inputs of the first call's shapes.

    Inputs of other shapes (the last partial batch) are computed plainly. Results of a replay are overwritten by the
    next one. The function must not wait for the device, and everything that changes between calls must be in tensors.
    """

    def __init__(self, function: Callable[..., T], *, required: bool) -> None:
        """A function that cannot be captured is called as it is, with a warning, unless capturing is `required`."""
        self._function, self._required = function, required
        self._shapes: list[torch.Size] = []
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        #: The graph's own inputs, and what it writes its results to.
        self._graph_inputs: list[Tensor] = []
        self._graph_results: T | None = None
        #: Whether calls go through a graph, or will.
        self.capturing = True

    def __call__(self, *inputs: Tensor) -> T:
        self._shapes = self._shapes or [value.shape for value in inputs]
        if not self.capturing or self._shapes != [value.shape for value in inputs]:
            return self._function(*inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._call_on_side_stream(inputs)
        if self._graph is None and not self._capture(inputs):
            return self._function(*inputs)
        assert self._graph is not None
        assert self._graph_results is not None
        for graph_input, value in zip(self._graph_inputs, inputs, strict=True):
            graph_input.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._graph_results

    def _call_on_side_stream(self, inputs: tuple[Tensor, ...]) -> T:
        """Call the function on a side stream, as the warm-up of a capture requires."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results = self._function(*inputs)
        current.wait_stream(stream)
        return results

    def _capture(self, inputs: tuple[Tensor, ...]) -> bool:
        self._graph_inputs = [value.clone() for value in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, such as one that pins memory, go on with what they do
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._graph_results = self._function(*self._graph_inputs)
        except RuntimeError as error:
            if self._required:
                raise
            _log.warning("not captured as a CUDA graph, going on without: %s", error)
            self.capturing = False
            return False
        self._graph = graph
        return True
