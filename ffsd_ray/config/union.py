"""Sections that come in kinds."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Field

from ffsd_ray.base_settings import Settings


def by_name(kinds: Mapping[str, type[Settings]]) -> Any:
    """The type of a section whose `name` key says which of `kinds` it is."""
    return Annotated[Union[tuple(kinds.values())], Field(discriminator="name")]  # noqa: UP007 (built at run time)
