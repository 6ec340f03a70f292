"""Verify that a run's records are as they were written: python -m ffsd_ray.records verify RUN."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from ffsd_ray.command import command
from ffsd_ray.errors import DamagedRecords
from ffsd_ray.file_schema import SchemaError
from ffsd_ray.records.run import RunRecords, checked_spec
from ffsd_ray.records.schemas import IDENTITY
from ffsd_ray.records.trial import TrialRecords

_TRIAL = re.compile(IDENTITY)


def faults(run: RunRecords) -> list[str]:
    """Read every file of a run in full and yield a message for each that is damaged, naming it."""
    messages = [*_fault(run.text), *_fault(run.specs)]
    for identity in _begun_trials(run):
        messages += _trial_faults(run.trial(identity))
    return list(dict.fromkeys(messages))


def remarks(run: RunRecords) -> list[str]:
    """Yield what is unusual but may be right: trials that have not begun, and files of no trial of the run."""
    folder, planned = run.store.child("trials"), _planned_trials(run)
    folders = folder.names()
    messages = [f"{folder.location}/{name}: no records yet" for name in planned or () if name not in folders]
    if planned is not None:
        messages += [
            f"{folder.location}/{name}: of no planned trial; not read" for name in folders if name not in planned
        ]
    for identity in _begun_trials(run):
        records = run.trial(identity)
        messages += [
            f"{records.store.location}/{name}: not a file of a trial; not read" for name in records.foreign_files()
        ]
    return messages


def _planned_trials(run: RunRecords) -> list[str] | None:
    """The identities in job.json; None where that is damaged."""
    try:
        return list(run.trials())
    except DamagedRecords:
        return None


def _begun_trials(run: RunRecords) -> list[str]:
    """The planned trials that have a folder; every trial's folder where it is not known what was planned."""
    planned = _planned_trials(run)
    folders = run.store.child("trials").names()
    return [name for name in folders if (_TRIAL.fullmatch(name) if planned is None else name in planned)]


def _trial_faults(records: TrialRecords) -> Iterator[str]:
    for name in records.files():
        yield from _fault(records.check, name)
    yield from _fault(_check_spec, records)
    if records.state() == "completed":
        yield from _fault(records.history_of, records.result())


def _check_spec(records: TrialRecords) -> None:
    """Raise DamagedRecords where spec.json is not of the trial that the folder is named after."""
    try:
        checked_spec(records.spec(), records.identity)
    except SchemaError as error:
        raise records.store.damaged("spec.json", str(error)) from error


def _fault(read: Callable[..., object], *arguments: object) -> Iterator[str]:
    try:
        read(*arguments)
    except DamagedRecords as error:
        yield str(error)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffsd records", description="Check the records of a run.")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="read every file of a run and name those that are not as written")
    verify.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all files are as they were written; 1 some are not; 2 there is no run."""
    run = RunRecords.open(build_parser().parse_args(argv).run)
    damaged = faults(run)
    for line in damaged:
        print(line)
    for line in remarks(run):
        print(f"Note: {line}")
    files = 2 + sum(len(run.trial(identity).files()) for identity in _begun_trials(run))
    print(f"{run.store.location}: {files} files read, {len(damaged)} faults")
    return 1 if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
