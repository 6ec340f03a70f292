"""What a trial needs of its images, known before its first step."""

from ffsd_ray.data import Dataset
from ffsd_ray.errors import DataError
from ffsd_ray.spec.trial import TrialSpec


def check_before_training(spec: TrialSpec, dataset: Dataset) -> list[str]:
    """What is to be told of a trial's images and of how it is trained on them, a line each.

    Raises:
        DataError: the trial cannot be trained on these images; the message says what to change.
    """
    if spec.method.wants_held_out and dataset.val is None:
        raise DataError(
            f"data.validation: {spec.method.name} learns from held-out images, of which there are none; expected a "
            "share above 0, e.g. 0.1, or a validation split in the data set (a folder val/)"
        )
    return list(dataset.notes)
