"""The card of a weights file, which says what its network is and was trained on."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from ffsd_ray.base_settings import LARGEST_IMAGE, MOST_CLASSES, Deviation, Share
from ffsd_ray.file_schema import expected
from ffsd_ray.nets.precision import Precision


def _distinct(classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(classes)) < len(classes):
        raise expected("every class once")
    return classes


def _names_images(spec: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(spec.get("data"), dict) or not isinstance(spec["data"].get("name"), str):
        raise expected("a key data.name")
    return spec


_Word = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Card:
    """The card of a weights file: metadata that describe the network. The bounds hold for a file that was read."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    backbone: _Word
    classes: Annotated[
        tuple[Annotated[str, Field(max_length=1000)], ...],
        Field(min_length=2, max_length=MOST_CLASSES),
        AfterValidator(_distinct),
    ]
    #: Of the training images' channels, pixels scaled to [0, 1].
    mean: tuple[Share, Share, Share]
    std: tuple[Deviation, Deviation, Deviation]
    #: Side of the square images in pixels.
    image_size: Annotated[int, Field(ge=1, le=LARGEST_IMAGE)]
    precision: Precision
    #: The member of the group whose weights these are.
    member: _Word
    epoch: Annotated[int, Field(ge=0, lt=2**31)]
    #: The split that `top1`, in percent, was measured on.
    split: Literal["train", "val", "test"]
    top1: Annotated[float, Field(ge=0, le=100)]
    #: The trial's spec, and its identity.
    spec: Annotated[dict[str, Any], AfterValidator(_names_images)]
    trial: _Word
