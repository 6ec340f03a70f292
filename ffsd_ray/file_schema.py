"""Schemas for the content of files, and messages for content that does not match."""

import reprlib
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from ffsd_ray.credentials import hidden
from ffsd_ray.terminal import plain

_LONGEST = 300


class SchemaError(ValueError):
    """Content that is not as a run writes it. The message names the key, and says what was expected, on one line."""


class Schema:
    """A type that plain content is held to, and not made into: readers go on with what stands in the file."""

    def __init__(self, kind: Any) -> None:
        self._kind: TypeAdapter[Any] = TypeAdapter(kind)

    def checked(self, content: Any) -> Any:
        """The content, as it is.

        Raises:
            SchemaError: it is not of this shape.
        """
        try:
            self._kind.validate_python(content, strict=True)
        except ValidationError as error:
            raise SchemaError(described(error)) from error
        return content


def expected(what: str) -> PydanticCustomError:
    """For validators: what of several keys together is not as it should be."""
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def described(error: ValidationError) -> str:
    """The first of its faults on one line: the key, what was expected and what is there."""
    fault = error.errors(include_url=False)[0]
    path, found = [str(step) for step in fault["loc"]], fault["input"]
    said = fault["msg"].replace("Input should be", "expected").replace("String should", "expected to")
    if fault["type"] == "missing":
        said = f"expected a key {path.pop()}"
    elif fault["type"] != "expected":
        simple = isinstance(found, str | int | float | None)
        said += f", found {reprlib.repr(found) if simple else type(found).__name__}"
    text = plain(hidden(": ".join([".".join(path), said] if path else [said])), keep="")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
