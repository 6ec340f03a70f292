"""Damaged images: which are too many to be left out, and how they are named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.picture import EMPTY
from ffsd_ray.errors import DataError

#: Number of images that an error names.
_MAX_LISTED = 20


@dataclass(frozen=True)
class DamagePolicy:
    """What to do about damaged images: `fail`, or `skip` them up to `max_skipped`, a fraction of all images."""

    action: Literal["fail", "skip"]
    max_skipped: float

    def check_share(self, skipped: Sequence[str], images: int) -> None:
        """Check that no more images are damaged than may be skipped.

        Raises:
            DataError: more are; the message lists `skipped`.
        """
        if len(skipped) > self.max_skipped * images:
            raise DataError(
                f"{len(skipped)} of {images} images are damaged, more than data.max_skipped = {self.max_skipped:g} of "
                f"them:\n{_format_lines(skipped)}"
            )


class DamagedImage(DataError):
    """An image that was read but cannot be decoded on any machine, since its bytes are no complete picture."""

    def __init__(self, where: str, cause: str) -> None:
        super().__init__(where, cause)  # for pickling, with which a decoding process returns the error
        self.where, self.cause = where, cause

    def __str__(self) -> str:
        return f"{self.where}: expected a whole picture (JPEG, PNG, WebP, ...): {self.cause}"


def check_not_empty(listing: Listing) -> None:
    """Check, without reading any image, that none is known to have zero bytes.

    Raises:
        DataError: images are empty.
    """
    spans = enumerate(item.data for item in listing.items)
    causes = {index: EMPTY for index, span in spans if isinstance(span, Span) and not span.length}
    if causes:
        raise damage_error(listing.items, causes)


def check_skipped(listing: Listing, causes: dict[int, str], on_error: DamagePolicy) -> tuple[str, ...]:
    """The names of the damaged images, each with its cause.

    Raises:
        DataError: too many images are damaged, or all of a class in a split.
    """
    skipped = tuple(_names_with_causes(listing.items, causes))
    on_error.check_share(skipped, len(listing.items))
    for split, first, part in listing.with_offsets:
        remaining = {item.label for index, item in enumerate(part, first) if index not in causes}
        if lost := sorted({item.label for item in part} - remaining):
            classes = ", ".join(listing.classes[label] for label in lost[:_MAX_LISTED])
            raise DataError(f"data.on_error: skip would leave no {split} image of {classes}:\n{_format_lines(skipped)}")
    return skipped


def damage_error(items: Sequence[Encoded], causes: dict[int, str]) -> DataError:
    """The error for damaged images; `causes`: by index in `items`."""
    if len(causes) == 1:
        [(index, cause)] = causes.items()
        return DamagedImage(items[index].where, cause)
    return DataError(
        f"{len(causes)} of {len(items)} images are damaged, expected whole pictures (JPEG, PNG, WebP, ...); "
        f"data.on_error: skip leaves such out:\n{_format_lines(_names_with_causes(items, causes))}"
    )


def _names_with_causes(items: Sequence[Encoded], causes: dict[int, str]) -> list[str]:
    """Name and cause of each damaged image as one text; `causes`: by index in `items`."""
    return [f"{items[index].where}: {causes[index]}" for index in sorted(causes)]


def _format_lines(lines: Sequence[str]) -> str:
    """Format the first `_MAX_LISTED` lines, indented, and the number of those left out."""
    more = [f"and {len(lines) - _MAX_LISTED:,} more"] if len(lines) > _MAX_LISTED else []
    return "\n".join(f"  {line}" for line in [*lines[:_MAX_LISTED], *more])
