"""A backbone's name as a setting."""

from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ffsd_ray.backbones import BACKBONES, LIBRARIES, UnknownBackbone, backbone
from ffsd_ray.base_settings import LONGEST_NAME


def _known(name: str) -> str:
    try:
        backbone(name)
    except UnknownBackbone as error:
        raise PydanticCustomError("unknown_name", "{said}", {"said": str(error), "names": error.names}) from error
    return name


#: A key of `BACKBONES`, or LIBRARY:NAME.
BackboneName = Annotated[
    str,
    Field(max_length=LONGEST_NAME),
    AfterValidator(_known),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": LONGEST_NAME,
            "anyOf": [{"enum": list(BACKBONES)}, {"pattern": rf"^({'|'.join(LIBRARIES)}):[\w.]+$"}],
        }
    ),
]
