"""Sums kept on the device while an epoch runs, read once at its end."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.errors import TrialError
from ffsd_ray.methods import Losses
from ffsd_ray.quality import count_confusion
from ffsd_ray.series import ANY, CONFUSION_TO, LOGITS, MEAN, TOP5_FROM, HistoryRow
from ffsd_ray.train.distributed import earliest_over_workers, sum_over_workers


class AccuracyMeter:
    """Loss and accuracies of every member and of the common students together, over a split."""

    def __init__(
        self,
        members: Sequence[str],
        common: Sequence[str],
        classes: int,
        device: torch.device,
        *,
        confusion: bool = False,
    ) -> None:
        """`confusion`: also count the images of each true class by the class that each member predicts."""
        self._members, self._common = list(members), list(common)
        self._top5 = classes >= TOP5_FROM
        students = [self._members.index(name) for name in self._common]
        #: The common students' rows. On the device: a list as an index would be copied there each time, and waited for.
        self._students = torch.tensor(students, dtype=torch.long, device=device)
        series = len(self._members) + (2 if common else 0)
        #: [series, (top1, top5, loss)] sums over images, then the number of images.
        self._sums = torch.zeros(series, 3, dtype=torch.float64, device=device)
        #: [members, K, K].
        self._confusion = (
            torch.zeros(len(self._members), classes, classes, dtype=torch.int64, device=device)
            if confusion and classes <= CONFUSION_TO
            else None
        )
        self._images = 0

    def update(self, logits: dict[str, Tensor], labels: Tensor) -> None:
        """Add a batch: logits [B, K] of every member, labels [B]."""
        scores = torch.stack([logits[name].detach() for name in self._members])
        if self._common:
            scores = torch.cat([scores, scores[self._students].mean(dim=0, keepdim=True)])
        predicted = scores.argmax(dim=2)
        if self._confusion is not None:
            count_confusion(self._confusion, labels, predicted[: len(self._members)])
        top1 = predicted == labels
        top5 = (scores.topk(5, dim=2).indices == labels[:, None]).any(dim=2) if self._top5 else top1
        right = torch.stack([top1, top5])
        if self._common:
            right = torch.cat([right, right[:, self._students].any(dim=1, keepdim=True)], dim=1)
        loss = F.cross_entropy(scores.flatten(0, 1), labels.repeat(len(scores)), reduction="none")
        self._sums[:, :2].add_(right.sum(dim=2, dtype=torch.float64).t())
        self._sums[: len(scores), 2].add_(loss.view(scores.shape[:2]).sum(dim=1, dtype=torch.float64))
        self._images += len(labels)

    def state(self) -> dict[str, Any]:
        """The sums so far over all workers, for one worker to `load`. Collective."""
        images = sum_over_workers(torch.tensor([self._images], device=self._sums.device))
        return {"sums": sum_over_workers(self._sums.clone()).cpu(), "images": int(images)}

    def load(self, state: dict[str, Any]) -> None:
        self._sums += state["sums"].to(self._sums.device)
        self._images += state["images"]

    def read(self, split: str) -> HistoryRow:
        """`<split>/<series>/<top1 | top5 | loss>` over all workers: accuracies in percent, losses in nats."""
        images = sum_over_workers(torch.tensor([self._images], dtype=torch.float64, device=self._sums.device))
        means = (sum_over_workers(self._sums) / images).tolist()
        series = [*self._members, *([LOGITS, ANY] if self._common else [])]
        row: HistoryRow = {}
        for name, (top1, top5, loss) in zip(series, means, strict=True):
            row[f"{split}/{name}/top1"] = 100 * top1
            if self._top5:
                row[f"{split}/{name}/top5"] = 100 * top5
            if name != ANY:
                row[f"{split}/{name}/loss"] = loss
        if self._common:
            for measure in ("top1", *(["top5"] if self._top5 else []), "loss"):
                values = [row[f"{split}/{name}/{measure}"] for name in self._common]
                row[f"{split}/{MEAN}/{measure}"] = math.fsum(values) / len(values)
        return row

    def confusion(self) -> dict[str, Tensor]:
        """Confusion matrices [K, K] by member, over all workers; none with more than CONFUSION_TO classes."""
        if self._confusion is None:
            return {}
        # Each with a storage of its own, for a checkpoint has the whole storage of a tensor.
        matrices = [counts.clone() for counts in sum_over_workers(self._confusion).cpu()]
        return dict(zip(self._members, matrices, strict=True))


class TermMeter:
    """Every loss term's mean over an epoch's images, and the first step at which it was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._sums = torch.zeros(0, dtype=torch.float64, device=device)
        self._first_bad = torch.zeros(0, dtype=torch.float64, device=device)
        self._images = 0

    def expect(self, names: Iterable[str]) -> None:
        """Register the terms, so that workers without images in a step have sums of the same length."""
        if not self._names:
            self._names = list(names)
            self._sums = self._sums.new_zeros(len(self._names))
            self._first_bad = self._first_bad.new_full((len(self._names),), math.inf)

    def update(self, terms: dict[str, Tensor], step: int, images: int) -> None:
        """Add a step's terms (means over `images` images of this worker)."""
        self.expect(terms)
        values = torch.stack([term.detach() for term in terms.values()]).double()
        self._sums.add_(values, alpha=images)
        self._first_bad.masked_fill_(~values.isfinite() & self._first_bad.isinf(), step)
        self._images += images

    def state(self) -> dict[str, Any]:
        """The sums so far over all workers, for one worker to `load`. Collective."""
        images = sum_over_workers(torch.tensor([self._images], device=self._device))
        return {
            "names": self._names,
            "sums": sum_over_workers(self._sums.clone()).cpu(),
            "first_bad": earliest_over_workers(self._first_bad.clone()).cpu(),
            "images": int(images),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._names, self._images = state["names"], state["images"]
        self._sums, self._first_bad = state["sums"].to(self._device), state["first_bad"].to(self._device)

    def read(self, epoch: int) -> HistoryRow:
        """`term/<member>/<term>` over all workers.

        Raises:
            TrialError: a term was not finite; names the first one, its member, epoch and step.
        """
        first_bad = earliest_over_workers(self._first_bad).tolist()
        images = sum_over_workers(torch.tensor([self._images], dtype=torch.float64, device=self._device))
        means = (sum_over_workers(self._sums) / images).tolist()
        step = min(first_bad)
        if not math.isinf(step):
            member, term = self._names[first_bad.index(step)].split("/")
            raise TrialError(
                f"the loss term {term} of {member} is not finite (epoch {epoch}, step {int(step) + 1}): "
                "training diverged; lower the learning rate or that term's weight, or warm it up"
            )
        return {f"term/{name}": value for name, value in zip(self._names, means, strict=True)}


class Meters(NamedTuple):
    """Meters of a training epoch."""

    terms: TermMeter
    accuracy: AccuracyMeter

    def update(self, losses: Losses, labels: Tensor, step: int) -> None:
        """Add this worker's part of a step."""
        self.terms.update(losses.terms, step, len(labels))
        self.accuracy.update(losses.logits, labels)

    def read(self, epoch: int) -> HistoryRow:
        """Over all workers. Raises TrialError: see `TermMeter.read`."""
        return self.terms.read(epoch) | self.accuracy.read("train")
