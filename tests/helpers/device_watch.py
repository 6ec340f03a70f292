"""Noticing on the meta device, which stands for a GPU, what would have the host wait for it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COPIES = {"aten::copy_", "aten::_to_copy"}
_FROM_HOST = {"tensor", "as_tensor", "new_tensor"}


class _Operations(TorchDispatchMode):
    """Refuses tensors of both devices in an operation. Numbers, which kernels take as arguments, may be the host's."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, results)) if isinstance(leaf, Tensor)]
        counted = [tensor for tensor in tensors if tensor.dim() or func._schema.name in _COPIES]
        assert len({tensor.device.type for tensor in counted}) < 2, f"{func} with tensors of host and device"
        return results


class _Calls(TorchFunctionMode):
    """Refuses lists as indices, and tensors made from values of the host: the copies are not seen as operations."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("__getitem__", "__setitem__") and args[0].is_meta:
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(index, list) for index in indices), f"{indices} as an index"
        results = func(*args, **(kwargs or {}))
        if name in _FROM_HOST:
            given = args[1] if name == "new_tensor" else args[0]
            assert not results.is_meta or isinstance(given, Tensor), f"{given} becomes a tensor of the device"
        return results


@contextlib.contextmanager
def watch_device() -> Iterator[None]:
    """Fail where the host would wait for the meta device; torch itself refuses to read values from it."""
    with _Calls(), _Operations():
        yield
