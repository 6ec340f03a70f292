"""Reading a run's records into trials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, MissingRecords
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import parallel_map
from ffsd_ray.records.trial import State, TrialRecords
from ffsd_ray.series import HistoryRow

T = TypeVar("T")

#: Reads what a report wants of a trial besides its result, which is None where it has not completed.
Need = Callable[[TrialRecords, dict[str, Any] | None], object]


@dataclass(frozen=True)
class Trial:
    """A trial and how it ended."""

    spec: TrialSpec
    #: Its result.json; None where it has not completed.
    result: dict[str, Any] | None
    #: Why it failed, or which of its files is not as it was written, in one line; None where all is well.
    error: str | None
    #: Whether that is because of a file: nothing of the trial's records is shown then.
    damaged: bool = False

    @property
    def state(self) -> State:
        return "completed" if self.result is not None else "failed" if self.error else "unfinished"


def environments(records: TrialRecords, result: dict[str, Any] | None) -> object:
    """A need."""
    return records.environment()


def histories(records: TrialRecords, result: dict[str, Any] | None) -> Sequence[HistoryRow]:
    """A need: its epochs so far, or those of its result."""
    return records.history() if result is None else records.history_of(result)


def collect(run: RunRecords, *needs: Need) -> list[Trial]:
    """The planned trials, in the job's order.

    A trial with a file that is damaged, or another trial's, has neither a result nor another error than that; `needs`
    are tried for it. A trial without a result need not have them.

    Raises:
        RecordsError: job.json is damaged, or of another version.
    """
    planned = run.specs()
    return parallel_map(lambda spec: _trial(spec, run.trial(spec.identity()), needs), planned.values())


def damages(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Messages on the trials that a report leaves out, each naming a file."""
    return tuple(trial.error for trial in trials if trial.damaged and trial.error)


def _trial(spec: TrialSpec, records: TrialRecords, needs: tuple[Need, ...]) -> Trial:
    """Reads straight away: to ask first whether there is a file would be as slow again on an object store."""
    try:
        if (result := _if_there(records.result)) is not None:
            for need in needs:
                need(records, result)
            return Trial(spec, result, None)
        for need in needs:
            _if_there(partial(need, records, None))
        if (error := _if_there(records.error)) is not None:
            return Trial(spec, None, f"{error['kind']}: {next(iter(error['message'].splitlines()), '')}")
    except DamagedRecords as fault:
        return Trial(spec, None, str(fault), damaged=True)
    return Trial(spec, None, None)


def _if_there(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except MissingRecords:
        return None
