"""The page's section on each trial: how it ended, its spec, and its environment."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import yaml

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import State
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.page.markup import fold, tag


@dataclass(frozen=True)
class About:
    """A trial beside its result."""

    name: str
    trial: Trial
    state: State
    #: environment.json less the time; None where the trial has not begun.
    environment: dict[str, Any] | None
    began: str
    #: Of a failed trial, in full.
    error: str

    @classmethod
    def read(cls, run: RunRecords, trial: Trial, name: str) -> "About":
        records = run.trial(trial.spec.identity())
        if trial.damaged:
            return cls(name, trial, "failed", None, "", trial.error or "")
        environment = None
        with suppress(FileNotFoundError):
            environment = records.environment()
        began = (environment or {}).pop("began", "")
        state: State = "completed" if trial.result is not None else "failed" if trial.error else "unfinished"
        error = "{kind}: {message}".format(**records.error()) if state == "failed" else ""
        return cls(name, trial, state, environment, began, error)

    @property
    def ended(self) -> str:
        """In words."""
        if self.trial.damaged:
            return "records damaged"
        if self.state == "failed":
            return "failed"
        if self.trial.result is None:
            return "not begun" if self.environment is None else "not finished"
        reused = self.trial.result.get("reused")
        return self.trial.result.get("ended", "completed") + (f", reused from {reused}" if reused else "")


def failures(abouts: Sequence[About]) -> list[Element]:
    """The trials without a result, with the whole error."""
    found = []
    for about in abouts:
        if about.state == "failed":
            found.append(tag("li", fold(f"{about.name}: {about.trial.error}", tag("pre", about.error))))
        elif about.state == "unfinished":
            found.append(tag("li", f"{about.name}: {about.ended}"))
    return [tag("ul", *found, class_="failures")] if found else []


def specs(abouts: Sequence[About]) -> list[Element]:
    return [_spec(about) for about in abouts]


def _spec(about: About) -> Element:
    text = yaml.safe_dump(about.trial.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    seconds = f", {about.trial.result['seconds']:,.1f} s of training" if about.trial.result else ""
    when = f", began {about.began}" if about.began else ""
    summary = tag("span", about.name, " ", tag("span", about.ended, class_=f"badge {about.state}"))
    return fold(
        summary,
        tag("p", "trial ", tag("code", about.trial.spec.identity()), f"{when}{seconds}", class_="caption"),
        tag("pre", text),
    )


def environments(abouts: Sequence[About]) -> list[Element]:
    """Each once, with the number of trials that ran in it."""
    found: dict[str, list[About]] = {}
    for about in abouts:
        if about.environment:
            found.setdefault(json.dumps(about.environment, sort_keys=True), []).append(about)
    return [_environment(group) for group in found.values()]


def _environment(group: Sequence[About]) -> Element:
    lines = [
        tag("tr", tag("th", key, scope="row"), tag("td", value)) for key, value in _flat(group[0].environment or {})
    ]
    trials = f"{len(group)} trial{'s' * (len(group) > 1)}"
    return tag("table", tag("caption", trials), tag("tbody", *lines), class_="facts")


def _flat(content: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        pair
        for key, value in content.items()
        for pair in (
            [(f"{key} {name}", text) for name, text in _flat(value)] if isinstance(value, dict) else [(key, str(value))]
        )
    ]
