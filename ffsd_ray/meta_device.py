"""Networks on torch's meta device, where nothing is computed or allocated: for shapes, operations and terms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: What sets values in place, of which the meta device has none; `torch.nn.init` is handed over whole.
_FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}


class _WithoutValues(TorchFunctionMode):
    """Leaves out initialisations, which torch would go through in Python, and which take most of the time."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if function in _FILLS or getattr(function, "__module__", "") == nn.init.__name__:
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor
        return function(*args, **given)


@contextmanager
def meta_device() -> Iterator[None]:
    """Tensors and networks that are made meanwhile are on the meta device."""
    with torch.device("meta"), _WithoutValues():
        yield
