"""Finding the pictures of a data set that has one folder for each class."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ffsd_ray.data.base import MAX_NAMES, list_names
from ffsd_ray.errors import DataError

#: File name endings of pictures, compared in lower case: those of `picture.FORMATS`.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .avif .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 (one line)
)

#: Lower-case names of files and folders that operating systems create. They are left out, as are hidden ones (.NAME).
_SYSTEM_FILES = frozenset(
    ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini")
)

#: The possible names of each split's folder, compared in lower case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class ClassFolders(NamedTuple):
    """The pictures of a folder that has one folder for each class."""

    images: dict[str, list[str]]
    """Paths of the pictures by class; classes and paths in alphabetical order."""
    notes: list[str]
    """Messages about files that were left out, a line each."""


def split_folders(root: Path) -> dict[str, Path]:
    """The folders in `root` that are splits of a data set: named as in `SPLIT_NAMES`, and containing folders.

    Raises:
        DataError: two folders are the same split, or a folder cannot be read.
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
    """Find the pictures in each class folder of `folder`, including its subfolders.

    `may_be_empty`: class folders without pictures are left out instead of being an error. Hidden files and those of
    operating systems are left out. Links to folders are followed, unless they lead to `folder`, into it or above it,
    where pictures would occur twice or under another class.

    Raises:
        DataError: there is no class folder, one has no picture, or a folder cannot be read.
    """
    walk, images = _FolderWalk(folder), {}
    for entry in _entries(folder):
        if not entry.is_dir():
            if _suffix(entry.name) in SUFFIXES:
                walk.left_out["in no class folder"] += 1
        elif not walk.leads_back(entry):
            walk.visited = set()
            before = walk.left_out.copy()
            paths = [path for _, paths in sorted(walk.pictures(entry.path)) for path in paths]
            if not paths and may_be_empty:
                continue
            if not paths:
                holds = _format_counts(walk.left_out - before) or "nothing"
                raise DataError(
                    f"{folder}: no picture in the class folder {entry.name}, which holds {holds}; expected JPEG, PNG, "
                    "WebP, ... in each, or no such folder"
                )
            images[entry.name] = paths
    if not images:
        raise DataError(f"{folder}: expected class folders of images, found no folder")
    notes = [f"{folder}: left out: {_format_counts(walk.left_out)}."] if walk.left_out else []
    return ClassFolders(images, notes + walk.links)


def pictures_below(folder: Path) -> list[str]:
    """Paths of all pictures in a folder and its subfolders, sorted by folder and name. Raises DataError: no picture."""
    walk = _FolderWalk(folder)
    paths = [path for _, paths in sorted(walk.pictures(str(folder))) for path in paths]
    if not paths:
        raise DataError(f"{folder}: expected pictures, found {_format_counts(walk.left_out) or 'nothing'}")
    return paths


def check_several_classes(classes: list[str], folder: Path) -> None:
    """Check that there are two classes or more, and suggest a folder one level below if there are not.

    Raises:
        DataError: there is only one class.
    """
    if len(classes) > 1:
        return
    inside = [entry.name for entry in _entries(folder / classes[0]) if entry.is_dir()]
    hint = f"; did you mean {folder / classes[0]}, which has {', '.join(inside[:MAX_NAMES])}?" if inside else ""
    raise DataError(
        f"data.root: {folder}: has one class folder, {classes[0]}; expected two or more, for there is nothing to tell "
        f"apart{hint}"
    )


def labelled_paths(part: ClassFolders, classes: list[str], folder: Path, train: Path) -> Iterator[tuple[str, int]]:
    """Path and label of each picture of a split; `classes`: the training split's, whose order gives the labels.

    `folder`, `train`: folders of this split and of the training split, for the message.

    Raises:
        DataError: the split has a class that the training split lacks.
    """
    if unknown := sorted(set(part.images) - set(classes)):
        casefolded = {name.casefold(): name for name in classes}
        case_differs = [
            f"{name} for {casefolded[name.casefold()]}" for name in unknown if name.casefold() in casefolded
        ]
        hint = f" (upper and lower case differ: {', '.join(case_differs)})" if case_differs else ""
        raise DataError(
            f"{folder}: expected the class folders of {train}, which has none of {', '.join(unknown[:MAX_NAMES])}{hint}"
        )
    labels = {name: label for label, name in enumerate(classes)}
    return ((path, labels[name]) for name, paths in part.images.items() for path in paths)


def missing_classes_note(split: str, part: ClassFolders, classes: list[str]) -> list[str]:
    """A note that names the classes of which a split has no image, as a list of one line; empty if it has all."""
    missing = [name for name in classes if name not in part.images]
    if not missing:
        return []
    return [f"No {split} image of {list_names(missing)}: trained, but not measured."]


class _FolderWalk:
    """A recursive search for pictures, which counts the files that it leaves out."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        #: Folders that were visited, as (device, inode): links may lead to one several times.
        self.visited: set[tuple[int, int]] = set()
        #: Number of files that were left out, by suffix or reason.
        self.left_out: Counter[str] = Counter()
        #: Messages about links that were not followed.
        self.links: list[str] = []

    def pictures(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """Yield `folder` and each folder below it, with the paths of the pictures directly in it, sorted."""
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
        """Whether a folder is a link to the searched folder, into it or above it; notes it in `links` if so."""
        if not entry.is_symlink():
            return False
        target = os.path.realpath(entry.path)
        leads_back = os.path.commonpath([target, self._folder]) in (target, self._folder)
        if leads_back:
            self.links.append(f"{entry.path}: left out: it is a link to {target}, which is looked through anyway.")
        return leads_back


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder in alphabetical order, without hidden ones and `_SYSTEM_FILES`. Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            relevant = [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in _SYSTEM_FILES]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(relevant, key=lambda entry: entry.name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _format_counts(left_out: Counter[str]) -> str:
    """Format counts as "3 .txt, 1 .csv", the largest first."""
    kinds = [f"{count:,} {kind}" for kind, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([*kinds[:MAX_NAMES], *(["..."] if len(kinds) > MAX_NAMES else [])])
