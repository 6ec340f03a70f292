"""Folders of pictures, one a class: which files are the images, and what is passed over."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ffsd_ray.errors import DataError

#: Endings of files that are taken for pictures, in any case: those of `picture.FORMATS`.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .avif .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 (one line)
)

#: What operating systems and tools leave in folders; whatever begins with a dot is passed over too.
_LEFTOVERS = frozenset(
    ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini")
)

#: The names of each split's folder, in any case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

_NAMED = 10  # names that a message lists


class ClassFolders(NamedTuple):
    """The pictures in a folder's class folders."""

    images: dict[str, list[str]]
    """The paths of each class's pictures; classes and paths in alphabetical order."""
    notes: list[str]
    """Notes on what was left out, a line each."""


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are splits of a data set, by `SPLIT_NAMES`: they hold folders, as splits do.

    Raises:
        DataError: two of them are the same split.
    """
    splits: dict[str, Path] = {}
    for entry in _entries(root):
        split = next((split for split, names in SPLIT_NAMES.items() if entry.name.lower() in names), None)
        if split is None or not entry.is_dir() or not any(inner.is_dir() for inner in _entries(Path(entry.path))):
            continue
        if split in splits:
            raise DataError(
                f"data.root: {root}: has {splits[split].name}/ and {entry.name}/, expected one folder of {split} images"
            )
        splits[split] = Path(entry.path)
    return {split: splits[split] for split in SPLIT_NAMES if split in splits}


def scan(folder: Path, *, may_be_empty: bool = False) -> ClassFolders:
    """The pictures in each class folder, in folders below it too; an empty one is an error unless it `may_be_empty`.

    Hidden files and folders, and what systems leave behind, are passed over. A link to a folder is followed, but not
    back into `folder` or above it: there it would bring in images again, or those of other classes.

    Raises:
        DataError: there is no class folder, one holds no picture, or a folder cannot be read.
    """
    found, images = _Walk(folder), {}
    for entry in _entries(folder):
        if not entry.is_dir():
            if _suffix(entry.name) in SUFFIXES:
                found.left_out["in no class folder"] += 1
        elif not found.leads_back(entry):
            found.visited = set()
            before = found.left_out.copy()
            paths = [path for _, paths in sorted(found.pictures(entry.path)) for path in paths]
            if not paths and may_be_empty:
                continue
            if not paths:
                holds = _listed(found.left_out - before) or "nothing"
                raise DataError(
                    f"{folder}: no picture in the class folder {entry.name}, which holds {holds}; expected JPEG, PNG, "
                    "WebP, ... in each, or no such folder"
                )
            images[entry.name] = paths
    if not images:
        raise DataError(f"{folder}: expected class folders of images, found no folder")
    notes = [f"{folder}: left out: {_listed(found.left_out)}."] if found.left_out else []
    return ClassFolders(images, notes + found.links)


def check_several(classes: list[str], folder: Path) -> None:
    """Raise DataError where there is nothing to tell apart; often the folder is one of a level too high."""
    if len(classes) > 1:
        return
    inside = [entry.name for entry in _entries(folder / classes[0]) if entry.is_dir()]
    hint = f"; did you mean {folder / classes[0]}, which has {', '.join(inside[:_NAMED])}?" if inside else ""
    raise DataError(
        f"data.root: {folder}: has one class folder, {classes[0]}; expected two or more, for there is nothing to tell "
        f"apart{hint}"
    )


def labelled(part: ClassFolders, classes: list[str], folder: Path, train: Path) -> Iterator[tuple[str, int]]:
    """Path and label of each picture of a split, by the classes of the training images.

    Raises:
        DataError: it has a class that they lack.
    """
    if unknown := sorted(set(part.images) - set(classes)):
        cases = {name.casefold(): name for name in classes}
        alike = [f"{name} for {cases[name.casefold()]}" for name in unknown if name.casefold() in cases]
        why = f" (upper and lower case differ: {', '.join(alike)})" if alike else ""
        raise DataError(
            f"{folder}: expected the class folders of {train}, which has none of {', '.join(unknown[:_NAMED])}{why}"
        )
    labels = {name: label for label, name in enumerate(classes)}
    return ((path, labels[name]) for name, paths in part.images.items() for path in paths)


def without_images(split: str, part: ClassFolders, classes: list[str]) -> list[str]:
    """A line that names the classes of which a split has no image; nothing where it has some of each."""
    missing = [name for name in classes if name not in part.images]
    if not missing:
        return []
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    return [f"No {split} image of {', '.join(missing[:_NAMED])}{more}: trained, but not measured."]


class _Walk:
    """One look through a folder's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        #: The folders that were entered, by device and number.
        self.visited: set[tuple[int, int]] = set()
        self.left_out: Counter[str] = Counter()
        self.links: list[str] = []

    def pictures(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """Each folder with the pictures that lie in it, in alphabetical order."""
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in self.visited:
            return
        self.visited.add((status.st_dev, status.st_ino))
        paths = []
        for entry in _entries(Path(folder)):
            if entry.is_dir():
                if not self.leads_back(entry):
                    yield from self.pictures(entry.path)
            elif (suffix := _suffix(entry.name)) not in SUFFIXES:
                self.left_out[suffix or "without a suffix"] += 1
            elif entry.is_file() or entry.is_symlink():  # a broken link is a picture that is missing
                paths.append(entry.path)
            else:
                self.left_out["that are no regular files"] += 1
        yield folder, paths

    def leads_back(self, entry: os.DirEntry[str]) -> bool:
        """Whether a folder is a link into what is looked through, or to what that is in."""
        if not entry.is_symlink():
            return False
        target = os.path.realpath(entry.path)
        back = os.path.commonpath([target, self._folder]) in (target, self._folder)
        if back:
            self.links.append(f"{entry.path}: left out: it is a link to {target}, which is looked through anyway.")
        return back


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The relevant entries of a folder, in alphabetical order."""
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if entry.name[0] != "." and entry.name.lower() not in _LEFTOVERS]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(kept, key=lambda entry: entry.name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _listed(left_out: Counter[str]) -> str:
    kinds = [f"{count:,} {kind}" for kind, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([*kinds[:_NAMED], *(["..."] if len(kinds) > _NAMED else [])])
