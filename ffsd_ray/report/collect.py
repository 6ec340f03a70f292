"""What a run's records say of its trials."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.spec.trial import TrialSpec


@dataclass(frozen=True)
class Trial:
    """A trial and how it ended."""

    spec: TrialSpec
    #: Its result.json; None where it has not completed.
    result: dict[str, Any] | None
    #: Why it failed, in one line; None where it has not.
    error: str | None


def collect(run: RunRecords) -> list[Trial]:
    """The planned trials, in the job's order.

    Raises:
        RecordsError: the records are damaged, or of another version.
    """
    planned = run.specs()
    # One small file after another would be slow on an object store.
    with ThreadPoolExecutor(16) as pool:
        ends = pool.map(lambda identity: _end(run.trial(identity)), planned)
        return [Trial(spec, *end) for spec, end in zip(planned.values(), ends, strict=True)]


def _end(records: TrialRecords) -> tuple[dict[str, Any] | None, str | None]:
    """Result and error. Reads straight away: to ask first would be as slow again on an object store."""
    with suppress(FileNotFoundError):
        return records.result(), None
    with suppress(FileNotFoundError):
        found = records.error()
        first = next(iter(found["message"].splitlines()), "")
        return None, f"{found['kind']}: {first}"
    return None, None
