"""What a classifier's predictions on labelled images are worth: by class, and how far to believe its probabilities."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

#: Equally wide bins of the calibration error.
_BINS = 15

#: Classes that the terminal shows: the worst ones of more.
_MOST_CLASSES = 30


class Quality(NamedTuple):
    """Accuracies in percent; of classes without images NaN."""

    #: Mean of the classes' accuracies, each class counting once.
    balanced: float
    #: Mean negative logarithm of the true class's probability, in nats.
    nll: float
    #: Expected calibration error (Guo et al., ICML 2017), in percent points, from 15 bins of the highest probability.
    ece: float
    #: [K, K]: images by true and by predicted class.
    confusion: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.int64]:
        """Images of each class."""
        counts: NDArray[np.int64] = self.confusion.sum(axis=1)
        return counts

    @property
    def by_class(self) -> NDArray[np.float64]:
        """The accuracy on each class."""
        return accuracy_by_class(self.confusion)


def count_confusion(counts: Tensor, labels: Tensor, predicted: Tensor) -> None:
    """Add images to confusion matrices in place, without waiting for the device.

    Args:
        counts: int64 [..., K, K], contiguous: images by true and by predicted class.
        labels: int64 [N].
        predicted: int64 [..., N], classes.
    """
    places = labels * counts.shape[-1] + predicted
    counts.flatten(-2).scatter_add_(-1, places, torch.ones_like(places))


def named_confusion(counts: Tensor, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """A confusion matrix [K, K] as records have it: by true and predicted class the numbers that are not 0.

    Empty where classes have the same name, by which they cannot be told apart.
    """
    if len(set(classes)) < len(classes):
        return {}
    rows = zip(classes, counts.tolist(), strict=True)
    return {true: {name: count for name, count in zip(classes, row, strict=True) if count} for true, row in rows}


def confusion_of(named: Mapping[str, Mapping[str, int]]) -> NDArray[np.int64]:
    """The matrix [K, K] of what `named_confusion` has made."""
    return np.array([[row.get(name, 0) for name in named] for row in named.values()], dtype=np.int64)


def accuracy_by_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Accuracies [K] in percent of a confusion matrix [K, K]; NaN of classes without images."""
    with np.errstate(invalid="ignore"):
        accuracies: NDArray[np.float64] = 100 * confusion.diagonal() / confusion.sum(axis=1)
    return accuracies


def quality(logits: Tensor, labels: Tensor) -> Quality:
    """From the logits [N, K] of images with labels [N]."""
    from sklearn.metrics import log_loss

    classes = logits.shape[1]
    probabilities = logits.double().softmax(dim=1).numpy()
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    count_confusion(counts, labels, logits.argmax(dim=1))
    confusion = counts.numpy()
    return Quality(
        balanced=float(np.nanmean(accuracy_by_class(confusion))),
        nll=float(log_loss(labels.numpy(), probabilities, labels=range(classes))),
        ece=100 * _calibration_error(probabilities, labels.numpy()),
        confusion=confusion,
    )


def _calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = (np.bincount(bins, right, _BINS) - np.bincount(bins, confidence, _BINS)) / len(labels)
    return float(np.abs(gaps).sum())


def class_table(found: Quality, classes: Sequence[str]) -> Table:
    """A row a class that has images, the worst first: its accuracy, and what it is taken for most often."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Class", overflow="fold")
    for heading in ("Images", "Accuracy"):
        table.add_column(heading, justify="right")
    table.add_column("Taken for", overflow="fold")
    accuracies, images = found.by_class, found.images
    present = [index for index in range(len(classes)) if images[index]]
    ranked = sorted(present, key=lambda index: accuracies[index])
    for index in ranked[:_MOST_CLASSES]:
        mistakes = found.confusion[index].copy()
        mistakes[index] = 0
        most = int(mistakes.argmax())
        taken_for = f"{classes[most]} ({mistakes[most]})" if mistakes[most] else ""
        table.add_row(classes[index], str(images[index]), f"{accuracies[index]:.1f} %", taken_for)
    if len(ranked) > _MOST_CLASSES:
        table.caption = f"The worst {_MOST_CLASSES} of {len(ranked)} classes."
    return table
