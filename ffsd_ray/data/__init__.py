"""Images: data sources, decoding (once before training, or during it) and batches.

Every subclass of `DataSettings` in a file of this package is a data source of job files.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from ffsd_ray.data.base import Dataset, DataSettings, Split, check_padding, list_names
from ffsd_ray.data.resident import Images
from ffsd_ray.data.subsets import at_most_per_class, split
from ffsd_ray.errors import DataError
from ffsd_ray.registry import by_name, modules

__all__ = ["SOURCES", "DataSettings", "Dataset", "Images", "Split", "found_in", "load"]


def found_in(module: ModuleType) -> Iterator[tuple[str, type[DataSettings]]]:
    """Yield the name and the settings class of every data source in a module."""
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, DataSettings):
            name = value.model_fields["name"].default
            if isinstance(name, str):  # a shared base class has no name
                yield name, value


#: Settings class of every data source by its `data.name`.
SOURCES = by_name(item for module in modules(__name__) for item in found_in(module))


def load(settings: DataSettings, *, progress: bool = False) -> Dataset:
    """Read and check the data set that `settings` describe, reduced to its subset, and hold out its validation split.

    `progress`: show progress bars.

    Raises:
        DataError: the images cannot be read or are unsuitable; the message names the setting, file or row.
    """
    dataset = settings.read(progress)
    try:
        check_padding(settings.crop_padding, dataset.image_size)
    except ValueError as error:
        raise DataError(f"data.crop_padding: {error}") from error
    if len(dataset.classes) < 2:
        raise DataError(f"data: {settings.name}: the images are all of one class, expected two classes or more")
    repeated = [name for name, count in Counter(dataset.classes).items() if count > 1]
    if repeated:
        raise DataError(
            f"data: {settings.name}: expected each class once, found twice or more: {', '.join(repeated[:10])}"
        )
    for part, images in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        if images is None:
            continue
        if not len(images):
            raise DataError(f"data: {settings.name}: no image in the {part} split, expected at least one")
        out_of_range = ((images.labels < 0) | (images.labels >= dataset.num_classes)).nonzero()
        if len(out_of_range):
            row = int(out_of_range[0])
            raise DataError(
                f"data: {settings.name}: {part} image {row} (from 0) has label {int(images.labels[row])}, "
                f"expected 0 to {dataset.num_classes - 1}"
            )
    dataset = _limited(_without_zero_deviations(dataset), settings)
    if not settings.validation:
        return dataset
    if dataset.val is not None:
        raise DataError(
            f"data.validation = {settings.validation:g}: the data set has a validation split of its own; expected 0"
        )
    train, val = split(dataset.train, settings.validation, settings.validation_seed, "data.validation", dataset.classes)
    return replace(dataset, train=train, val=val)


def _limited(dataset: Dataset, settings: DataSettings) -> Dataset:
    """The data set with at most `train_per_class` and `test_per_class` images of each class."""
    notes = list(dataset.notes)

    def limited(part: str, images: Split, limit: int | None) -> Split:
        if limit is None:
            return images
        counts = enumerate(images.labels.bincount(minlength=dataset.num_classes).tolist())
        if few := [f"{dataset.classes[label]} ({count})" for label, count in counts if count < limit]:
            notes.append(f"data.{part}_per_class = {limit}: fewer {part} images of {list_names(few)}.")
        return at_most_per_class(images, limit, settings.subset_seed)

    train = limited("train", dataset.train, settings.train_per_class)
    test = limited("test", dataset.test, settings.test_per_class)
    return replace(dataset, train=train, test=test, notes=tuple(notes))


def _without_zero_deviations(dataset: Dataset) -> Dataset:
    """Replace the standard deviation of constant channels by 1, so that normalisation does not divide by 0.

    Raises:
        DataError: all channels are constant.
    """
    constant = [name for name, std in zip(("red", "green", "blue"), dataset.std, strict=True) if std == 0]
    if not constant:
        return dataset
    if len(constant) == 3:
        raise DataError("data: every training image is of one and the same colour: there is nothing to learn from")
    note = f"In the training images {' and '.join(constant)} never varies, and is not scaled (data.std 1 for it)."
    red, green, blue = (value or 1.0 for value in dataset.std)
    return replace(dataset, std=(red, green, blue), notes=(*dataset.notes, note))
