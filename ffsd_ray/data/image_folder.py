"""A data source for the user's own images, in one folder for each class."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from ffsd_ray.base_settings import LARGEST_IMAGE, LOCATION, Location
from ffsd_ray.data.base import Dataset
from ffsd_ray.data.class_folders import check_several_classes, labelled_paths, missing_classes_note, scan, split_folders
from ffsd_ray.data.decode import read_decoded
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.remote import local_copy
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.data.subsets import split_indices
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.storage import is_uri


class ImageFolder(StreamableSettings):
    """Images in one folder for each class; the class folders are in train/, test/ and val/, or directly in `root`."""

    name: Literal["image_folder"] = "image_folder"
    root: Location = Field(
        json_schema_extra=LOCATION,
        description="Folder with train/, test/ and val/ (validation images, which choose the best epoch), or with the "
        "class folders themselves; its path or a URI (s3://bucket/folder, gs://...), from which each node copies it "
        "once. Where test/ is missing the images of val/ are the test images.",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each class that is the test split, the same in every run, where `root` has neither test/ "
        "nor val/.",
    )
    image_size: int = Field(
        32,
        ge=8,
        le=LARGEST_IMAGE,
        description="Side of the square images in pixels: the shorter side is scaled to it and the centre cut out; "
        "of a stream see `stream`.",
    )

    @property
    def known_classes(self) -> None:
        return None

    @property
    def known_size(self) -> int:
        return self.image_size

    @property
    def may_have_validation(self) -> bool:
        return True  # whether `root` has val/ is known only when it is read

    @contextmanager
    def local_copy(self, progress: bool) -> Iterator[Self]:
        if not is_uri(self.root):
            yield self
            return
        with local_copy(self.root, None, self.cache, "root", progress=progress) as root:
            yield self.changed(root=str(root))

    def decoded(self, progress: bool) -> Dataset:
        listing = self.encoded()
        return read_decoded(
            lambda: listing,
            [[item.where for item in part] for part in listing.splits.values()],
            size=self.image_size,
            cache=self.cache,
            progress=progress,
            on_error=self.damage_policy,
        )

    def named_files(self) -> list[tuple[str, str]]:
        root = Path(self.root).expanduser()
        return [(os.path.relpath(item.where, root), item.where) for item in self.encoded().items]

    def encoded(self) -> Listing:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataMissing(f"data.root: {root}: no such folder, expected class folders of images")
        folders = split_folders(root)
        if folders and "train" not in folders:
            names = ", ".join(f"{folder.name}/" for folder in folders.values())
            raise DataError(f"data.root: {root}: has {names}, expected train/ beside it")
        if len(folders) < 2:
            return self._split(folders.get("train", root))
        notes = []
        if "test" not in folders:
            notes.append(f"{root}: has no test/: the images of {folders['val'].name}/ are the test images.")
            folders["test"] = folders.pop("val")
        parts = {split: scan(folder, may_be_empty=split != "train") for split, folder in folders.items()}
        classes = list(parts["train"].images)
        check_several_classes(classes, folders["train"])
        images: dict[str, list[Encoded]] = {"train": [], "val": [], "test": []}
        for split, part in parts.items():
            notes += [*part.notes, *missing_classes_note(split, part, classes)]
            labelled = labelled_paths(part, classes, folders[split], folders["train"])
            images[split] = [Encoded(Span(path), label, path) for path, label in labelled]
        return Listing(**images, classes=tuple(classes), notes=tuple(notes))

    def _split(self, folder: Path) -> Listing:
        """The images of class folders directly in `folder`, of which `test_fraction` is the test split."""
        part = scan(folder)
        classes = list(part.images)
        check_several_classes(classes, folder)
        items = [Encoded(Span(path), label, path) for path, label in labelled_paths(part, classes, folder, folder)]
        key, labels = "data.test_fraction", [item.label for item in items]
        train, test = split_indices(labels, self.test_fraction, 0, key, classes)
        return Listing([items[i] for i in train], [], [items[i] for i in test], tuple(classes), tuple(part.notes))
