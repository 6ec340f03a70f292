"""Checks of a trial against its images before the first step."""

from collections.abc import Iterator

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.data.batches import epoch_steps, last_batch
from ffsd_ray.errors import DataError, TrialError
from ffsd_ray.train.build import checked_shapes, joins_last_batch

#: Times as many images of one class as of another that are told.
_UNEQUAL = 5


def check_before_training(spec: TrialSpec, dataset: Dataset) -> list[str]:
    """Notes on a trial's images and on how it is trained on them, a line each.

    Raises:
        DataError: the trial cannot be trained on these images; the message says what to change.
    """
    if spec.method.requires_validation and dataset.val is None:
        raise DataError(
            f"data.validation: {spec.method.label()} needs held-out images, of which there are none; expected a "
            "share above 0, e.g. 0.1, or a validation split in the data set (a folder val/)"
        )
    try:
        checked_shapes(spec, dataset.image_size)
    except TrialError as error:
        raise DataError(str(error)) from error
    return [*dataset.notes, *_unequal_classes_note(spec, dataset), *_joined_batch_notes(spec, dataset)]


def _unequal_classes_note(spec: TrialSpec, dataset: Dataset) -> Iterator[str]:
    counts = dataset.train.labels.bincount(minlength=dataset.num_classes).tolist()
    fewest, most = min(counts), max(counts)
    if most > _UNEQUAL * fewest and not spec.train.balanced:
        rare, frequent = dataset.classes[counts.index(fewest)], dataset.classes[counts.index(most)]
        yield (
            f"Unequal classes: {most:,} training images of {frequent}, {fewest:,} of {rare}. Accuracy favours the "
            "frequent ones: ffsd evaluate has it by class, and train.balanced shows them all as often."
        )


def _joined_batch_notes(spec: TrialSpec, dataset: Dataset) -> Iterator[str]:
    images, batch_size, limit = len(dataset.train), spec.train.batch_size, spec.train.steps_per_epoch
    steps = epoch_steps(images, batch_size, limit, join_last=False)
    reaches_last = steps == epoch_steps(images, batch_size, None, join_last=False)
    if not reaches_last or not joins_last_batch(spec, images, dataset.num_classes, dataset.image_size):
        return
    last, workers = last_batch(images, batch_size), spec.scale.most_workers
    problem = f"the last batch of an epoch has {last} image{'s' * (last > 1)} for {workers} worker{'s' * (workers > 1)}"
    if steps == 1:
        raise DataError(
            f"train.batch_size = {batch_size}: {problem}, and is the only one; batch norm in {spec.method.name} on "
            f"{spec.backbone.name} needs 2 images a worker: fewer workers (scale.workers) or more training images"
        )
    yield f"{spec.method.label()}: {problem}, too few for batch norm: they join the batch before (train.batch_size)."
