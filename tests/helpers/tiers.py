"""Which of a test's parameters are tried at every change, and which before a merge or in the longer proofs."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def often(chosen: Collection[Any], values: Iterable[Any], *, others: str = "thorough") -> list[Any]:
    """The parameters `values`, all but the `chosen` ones marked as `others`; tuples are the values of several."""
    mark = getattr(pytest.mark, others)
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=[] if value in chosen else [mark])
        for value in values
    ]
