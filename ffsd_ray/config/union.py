"""Sections that have a name, and those whose name says of which kind they are."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Field

from ffsd_ray.base_settings import Name, Settings


def by_name(kinds: Mapping[str, type[Settings]]) -> Any:
    """The type of a section whose `name` key says which of `kinds` it is; text stands for that key alone."""
    kind: Any = Union[tuple(kinds.values())]  # noqa: UP007 (built at run time)
    return short_form(Annotated[kind, Field(discriminator="name")])


def short_form(section: Any) -> Any:
    """The type of a section for which text, its name, is enough."""
    return Annotated[section, BeforeValidator(named, json_schema_input_type=section | Name)]


def named(value: Any) -> Any:
    """A section from its name alone."""
    return {"name": value} if isinstance(value, str) else value
