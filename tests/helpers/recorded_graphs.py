"""CUDA graphs on a machine without a GPU: operations are recorded, and done again into the same memory."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

#: What reads a value, for which the host has to wait: no capture survives it.
_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select"}


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class RecordedGraph(TorchDispatchMode):
    """Stands for a `torch.cuda.CUDAGraph`.

    As there, a capture computes nothing: what it has written is as before when it ends. Results of operations, also
    those between them, are kept at their place, and have no values but those of this graph's last replay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._operations: list[tuple[Any, Sequence[Any], dict[str, Any], list[Tensor]]] = []
        #: Memory that the graph has of its own, and the rest that it uses with its content before the capture.
        self._own: dict[int, UntypedStorage] = {}
        self._before: dict[int, tuple[UntypedStorage, UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        used = {_address(tensor): tensor.untyped_storage() for tensor in _tensors((args, kwargs))}
        for address, storage in used.items():
            if address not in self._own and address not in self._before:
                self._before[address] = storage, storage.clone()
        given = tree_map_only(Tensor, Tensor.detach, (args, kwargs))  # of the shape that they have now
        results = func(*args, **kwargs)
        made = [tensor.detach() for tensor in _tensors(results) if _address(tensor) not in used]
        self._own |= {_address(tensor): tensor.untyped_storage() for tensor in made}
        changes = func.namespace == "c10d" or (func._schema.is_mutable and torch.Tag.inplace_view not in func.tags)
        if made or changes:  # else it is a view, or gives a tensor another shape
            self._operations.append((func, *given, made))
        return results

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        random_state = torch.get_rng_state()
        try:
            with self:
                yield
        finally:
            torch.set_rng_state(random_state)
            for storage, content in self._before.values():
                storage.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for storage in self._own.values():  # with what is no number: graphs that share memory leave nothing there
            storage.fill_(0xFF)  # type: ignore[attr-defined]
        for func, args, kwargs, made in self._operations:
            used = {_address(tensor) for tensor in _tensors((args, kwargs))}
            results = func(*args, **kwargs)
            if func.namespace == "c10d":
                results[-1].wait()  # what workers do together, which has begun
            again = [tensor for tensor in _tensors(results) if _address(tensor) not in used]
            for kept, tensor in zip(made, again, strict=True):
                kept.copy_(tensor)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Stream:
    def wait_stream(self, other: "_Stream") -> None:
        pass


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Put recorded graphs in the place of CUDA's; the list will hold each one that is made."""
    graphs: list[RecordedGraph] = []

    def new_graph() -> RecordedGraph:
        graphs.append(RecordedGraph())
        return graphs[-1]

    def capture(graph: RecordedGraph, **options: object) -> contextlib.AbstractContextManager[None]:
        return graph.captured()

    def one_hot(labels: Tensor, classes: int) -> Tensor:
        """As torch's, which on CPUs alone reads the labels to check them."""
        return (labels[:, None] == torch.arange(classes)).long()

    monkeypatch.setattr("torch.nn.functional.one_hot", one_hot)
    monkeypatch.setattr("torch.cuda.CUDAGraph", new_graph)
    monkeypatch.setattr("torch.cuda.graph", capture)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", tuple)
    monkeypatch.setattr("ffsd_ray.train.cuda_graph.side_stream", lambda number: _Stream())
    monkeypatch.setattr("ffsd_ray.nets.concurrent.side_stream", lambda number: _Stream())
    monkeypatch.setattr("torch.cuda.stream", contextlib.nullcontext)
    monkeypatch.setattr("torch.cuda.current_stream", _Stream)
    return graphs
