"""What a run's page says of a trial: how it ended, its spec, and its environment."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import State
from ffsd_ray.report.collect import Trial


@dataclass(frozen=True)
class About:
    """A trial in words."""

    name: str
    identity: str
    #: YAML.
    spec: str
    state: State
    ended: str
    #: When it began (ISO 8601, UTC); '' where that is not known.
    began: str
    #: The same in words, and how long it trained.
    details: tuple[str, ...]
    #: Of a failed trial, in one line and in full.
    reason: str
    error: str
    #: environment.json less the time, as keys and values; empty where the trial has not begun.
    environment: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, run: RunRecords, trial: Trial, name: str) -> "About":
        """`trial` of `run`; nothing more is read of one whose records are damaged."""
        identity, result, reason = trial.spec.identity(), trial.result, trial.error or ""
        records, environment, error = run.trial(identity), None, reason
        if not trial.damaged:
            with suppress(FileNotFoundError):
                environment = records.environment()
        facts = dict(environment or {})
        began: str = facts.pop("began", "")
        details = [f"began {began}"] if began else []
        if result is not None:
            ended = result.get("ended", "completed")
            ended += f", reused from {result['reused']}" if result.get("reused") else ""
            details.append(f"{result['seconds']:,.1f} s of training")
        elif trial.damaged:
            ended = "records damaged"
        elif reason:
            ended, error = "failed", "{kind}: {message}".format(**records.error())
        else:
            ended = "not begun" if environment is None else "not finished"
        spec = yaml.safe_dump(trial.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return cls(name, identity, spec, trial.state, ended, began, tuple(details), reason, error, tuple(_flat(facts)))


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Keys with those `above` them, and values as text."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key} ")
        else:
            yield f"{above}{key}", str(value)
