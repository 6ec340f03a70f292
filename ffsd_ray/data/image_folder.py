"""A folder of one's own images: one sub-folder a class."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from ffsd_ray.data.base import Dataset, split_indices
from ffsd_ray.data.decode import Encoded, Listing, Span, read_decoded
from ffsd_ray.data.remote import here
from ffsd_ray.data.stream import StreamableSettings
from ffsd_ray.errors import DataError
from ffsd_ray.storage import is_uri


class ImageFolder(StreamableSettings):
    """Class folders of images, in train/ and test/ (or val/), or directly in `root`."""

    name: Literal["image_folder"] = "image_folder"
    root: str = Field(
        description="Folder with train/ and test/ (or else val/), or with the class folders themselves; its path or a "
        "URI (s3://bucket/folder, gs://...), from which each node copies it once."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each class that is the test split, the same in every run, where `root` has no train/.",
    )
    image_size: int = Field(
        32,
        ge=8,
        description="Side of the square images in pixels: the shorter side is scaled to it and the centre cut out; "
        "of a stream see `stream`.",
    )

    @property
    def known_classes(self) -> None:
        return None

    @property
    def known_size(self) -> int:
        return self.image_size

    @contextmanager
    def here(self, progress: bool) -> Iterator[Self]:
        if not is_uri(self.root):
            yield self
            return
        with here(self.root, None, self.cache, "root", progress=progress) as root:
            yield self.changed(root=str(root))

    def decoded(self, progress: bool) -> Dataset:
        listing = self.encoded()
        train, test = ([item.where for item in part] for part in (listing.train, listing.test))
        return read_decoded(lambda: listing, train, test, size=self.image_size, cache=self.cache, progress=progress)

    def encoded(self) -> Listing:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"data.root: {root}: no such folder, expected class folders of images")
        if not (root / "train").is_dir():
            items, classes = _scan(root)
            kept, held = split_indices([item.label for item in items], self.test_fraction, 0, "data.test_fraction")
            return Listing([items[i] for i in kept], [items[i] for i in held], classes)
        held_out = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
        if held_out is None:
            raise DataError(f"data.root: {root}: has train/, expected test/ or val/ beside it")
        (train, classes), (test, test_classes) = _scan(root / "train"), _scan(held_out)
        if classes != test_classes:
            odd = ", ".join(sorted(set(classes) ^ set(test_classes)))
            raise DataError(f"{held_out}: expected the class folders of {root / 'train'}; in one of them only: {odd}")
        return Listing(train, test, classes)


def _scan(folder: Path) -> tuple[list[Encoded], tuple[str, ...]]:
    from torchvision import datasets  # takes seconds, and settings are checked without it

    try:
        found = datasets.ImageFolder(folder)
    except FileNotFoundError as error:  # no class folder, or one without images: the message names it
        raise DataError(f"{folder}: expected class folders of images: {error}") from error
    return [Encoded(Span(path), label, path) for path, label in found.samples], tuple(found.classes)
