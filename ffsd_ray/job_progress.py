"""How far a job is, and how long the rest of it will take."""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ffsd_ray.config.inspection.dry_run import training_flops
from ffsd_ray.config.inspection.flops import flops_per_image
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.trial import State

#: Number of classes, and side in pixels, of images of which these are not known before they are read.
_CLASSES, _SIZE = 10, 224

#: Waiting trials for each that runs, from which on the time left is of so many pieces of all their work: 3 % of it at
#: most is lost, and it is looked for at every epoch of every trial.
_PIECES = 32

#: Seconds of training before there is a time left: a first epoch of less is for the most part its first step's warm-up.
_LEAST_SECONDS = 5.0


def relative_work(specs: Sequence[TrialSpec]) -> dict[str, float]:
    """What each trial takes, in one unit, by identity: its operations.

    Those are not known of images that are counted only when they are read: then it is as if all trials had as many.
    Where a method's are not known, it is as if all methods had as many.
    """
    operations = {spec.identity(): training_flops(spec) for spec in specs}
    known = {identity: flops for identity, flops in operations.items() if flops is not None}
    if len(known) == len(specs):
        return known
    work = {}
    for spec in specs:
        classes, size = spec.data.known_classes or _CLASSES, spec.data.known_size or _SIZE
        per_image = flops_per_image(spec.method, spec.backbone.name, classes, size)
        if per_image is None:
            return {spec.identity(): float(spec.train.epochs) for spec in specs}
        work[spec.identity()] = per_image * spec.train.epochs
    return work


@dataclass
class _Running:
    """A trial at work."""

    work: float
    epochs: int
    #: Epochs that it had before it began here, and has now.
    before: int
    epoch: int
    #: When it began, and when the last epoch ended.
    began: float
    at: float

    @property
    def done(self) -> float:
        """Work since it began here."""
        return self.work * (self.epoch - self.before) / self.epochs

    @property
    def left(self) -> float:
        return self.work * (self.epochs - self.epoch) / self.epochs


class JobProgress:
    """Counts of a job's trials, the best accuracy so far, and the time left.

    The time is that of the work which remains, at the speed of the epochs so far, shared out to as many trials at once
    as run now.
    """

    def __init__(
        self, work: Mapping[str, float], *, done: int, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`work`: of the trials that are to run, by identity, in any unit; of all `total` trials so many are `done`."""
        self._work, self._clock = dict(work), clock
        #: The work of trials that are not known before they begin.
        self._mean = sum(work.values()) / len(work) if work else 1.0
        self._running: dict[str, _Running] = {}
        #: The trials that have not begun, and the sum of their work.
        self._waiting = dict(work)
        self._waiting_sum = sum(work.values())
        #: Work and seconds of the trials that have ended here.
        self._worked = self._busy = 0.0
        self.done, self.failed, self.total = done, 0, total
        #: The highest accuracy in percent and whose it is; None before the first.
        self.best: tuple[float, str] | None = None

    @property
    def finished(self) -> int:
        """Trials that have ended, well or not."""
        return self.done + self.failed

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.finished - self.running)

    def started(self, identity: str, epochs: int, done: int) -> None:
        """A trial of so many `epochs` begins, or goes on after `done` of them."""
        now = self._clock()
        self._no_longer_waits(identity)
        self._running[identity] = _Running(self._work.get(identity, self._mean), epochs, done, done, now, now)

    def epoch(self, identity: str, epoch: int, accuracy: float | None) -> None:
        """A trial's epoch has ended; `accuracy` in percent, None where it was not evaluated."""
        if trial := self._running.get(identity):  # else it has ended, and this comes late
            trial.epoch, trial.at = epoch, self._clock()
        if accuracy is not None and (self.best is None or accuracy > self.best[0]):
            self.best = accuracy, identity

    def ended(self, identity: str, state: State) -> None:
        self._no_longer_waits(identity)
        if state == "completed":
            self.done += 1
        else:
            self.failed += 1
        if trial := self._running.pop(identity, None):
            self._worked += trial.done
            self._busy += trial.at - trial.began

    def seconds_left(self, identity: str | None = None) -> float | None:
        """Until the job, or one of its trials, has ended; None of what does not run, and while too little is known.

        That is before the first epoch has ended, and before the job has trained for 5 s.
        """
        worked = self._worked + sum(trial.done for trial in self._running.values())
        busy = self._busy + sum(trial.at - trial.began for trial in self._running.values())
        # A trial that went back to a checkpoint has for a while done less than nothing.
        if worked <= 0 or busy < _LEAST_SECONDS or (identity is not None and identity not in self._running):
            return None
        speed, now = worked / busy, self._clock()

        def left_of(trial: _Running) -> float:
            own = trial.done / (trial.at - trial.began) if trial.done > 0 and trial.at > trial.began else speed
            return max(0.0, trial.left / own - (now - trial.at))

        if identity is not None:
            return left_of(self._running[identity])
        lanes = [left_of(trial) for trial in self._running.values()] or [0.0]
        heapq.heapify(lanes)
        for work in self._waiting_work(_PIECES * len(lanes)):
            heapq.heapreplace(lanes, lanes[0] + work / speed)
        return max(lanes)

    def _waiting_work(self, most: int) -> list[float]:
        """Of the trials that have not begun; of those that a searcher has not chosen yet, the mean of all.

        Of more than `most` trials: their sum in as many equal pieces.
        """
        known, unknown = min(len(self._waiting), self.waiting), max(0, self.waiting - len(self._waiting))
        if known + unknown <= most:
            return [*islice(self._waiting.values(), known), *[self._mean] * unknown]
        whole = self._waiting_sum * known / max(1, len(self._waiting)) + self._mean * unknown
        return [whole / most] * most

    def _no_longer_waits(self, identity: str) -> None:
        self._waiting_sum -= self._waiting.pop(identity, 0.0)
