"""Loading a job file: from text to validated trials."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffsd_ray.config.expansion.check_search import check_search, check_variants
from ffsd_ray.config.expansion.expand import expand, sections_in_search
from ffsd_ray.config.expansion.sampling import rounded
from ffsd_ray.config.inspection.group_info import networks
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.keys import TRIAL_KEYS, did_you_mean, split
from ffsd_ray.config.source.located import LocatedValue, from_plain, put
from ffsd_ray.config.source.overrides import override
from ffsd_ray.config.source.problems import Place, Problems, format_value
from ffsd_ray.config.source.short_forms import spelled_out
from ffsd_ray.config.source.wording import validate
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.credentials import secret_in
from ffsd_ray.memory import as_bytes

#: Bytes of the longest job file.
_LONGEST = 10_000_000


@dataclass(frozen=True)
class Plan:
    """A job that is right: its trials in order, each identity once; the file as given, and what was set over it.

    Where the search space sets single keys of a section, `job` has that section as the first trial has it.
    """

    job: JobSpec
    trials: tuple[TrialSpec, ...]
    text: str
    overrides: tuple[str, ...]
    #: Where Optuna chooses the trials, `with_values(template, ...)` is one that it chose; `trials` are those alone that
    #: all of them learn from.
    template: TrialSpec | None = None
    #: The template with each chosen key at the ends of what it is chosen from.
    extremes: tuple[TrialSpec, ...] = ()

    @property
    def total(self) -> int:
        """How many trials there are in the end."""
        return len(self.trials) + (self.job.search.samples or 0 if self.template is not None else 0)

    @property
    def specs(self) -> tuple[TrialSpec, ...]:
        """The trials, and what those that Optuna chooses are made from and range between."""
        return (*self.trials, *([self.template] if self.template is not None else []), *self.extremes)

    def changed(self, change: Callable[[TrialSpec], TrialSpec]) -> "Plan":
        """The plan with a change made to each of `specs`; trials that become the same are one."""
        template = change(self.template) if self.template is not None else None
        trials = complete([change(trial) for trial in self.trials], template)
        return replace(self, trials=trials, template=template, extremes=tuple(map(change, self.extremes)))

    @property
    def needed(self) -> frozenset[str]:
        """The identities of those trials that others learn from."""
        return frozenset(trial.identity() for trial in _prerequisites(self.trials, self.template))


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a job file; each of `overrides` is a `dotted.key=value` that goes over what the file says.

    Raises:
        JobError: everything that is wrong with the file and the overrides, each with its place.
    """
    return parse_job(_read(Path(path), Problems()), path, overrides)


def parse_job(text: str, path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """The job that a text is, see `load_job`; `path`: what messages call the text."""
    problems = Problems()
    tree = parse(text, lambda line, column: Place(str(path), line, column), problems)
    if tree is not None and not isinstance(tree.value, dict):
        content = "The file is empty" if tree.value is None else f"The whole file is {format_value(tree.plain())}"
        problems.add(tree.at, "", f"{content}; a job is sections with keys, of which `name: ...` is the first.")
        tree = None
    if tree is None:
        problems.check()
    assert tree is not None
    tree = spelled_out(override(spelled_out(tree), overrides, problems))
    _refuse_secrets(tree, path, text, overrides, problems)
    expansion = expand(tree, problems)
    job = validate(JobSpec, _frame(tree, expansion.first), problems)
    _check_rows(tree, problems)
    if job is not None:
        if job.context == "local" and job.scale.most_workers > 1:
            node = tree.get("scale", "workers")
            assert node is not None
            problems.add(
                node.at, "scale.workers", "Should be 1 with `context: local`.", format_value(job.scale.most_workers)
            )
        if job.context == "local":
            for service in job.watch.services:
                node = tree.get("watch", service)
                assert node is not None
                problems.add(node.key_at, f"watch.{service}", "Works through Ray only; leave it out of a local job.")
    trials = _validated(expansion.trials, problems, in_trial=True)
    extremes = {path: _validated(trees, problems) for path, trees in expansion.extremes.items()}
    templates = _validated([expansion.template] if expansion.template is not None else [], problems)
    if job is not None:
        check_variants(tree, trials, problems)
        check_search(job, tree, [*trials, *templates], extremes, problems)
    problems.check(len(expansion.trials))
    assert job is not None
    template = templates[0] if templates else None
    return Plan(
        job,
        complete([resolved(trial) for trial in trials], template),
        text,
        tuple(overrides),
        template=template,
        extremes=tuple(resolved(extreme) for ends in extremes.values() for extreme in ends) if templates else (),
    )


def _validated(trees: Sequence[LocatedValue], problems: Problems, *, in_trial: bool = False) -> list[TrialSpec]:
    trials = [validate(TrialSpec, tree, problems, in_trial=in_trial) for tree in trees]
    return [trial for trial in trials if trial is not None]


def resolved(trial: TrialSpec) -> TrialSpec:
    """The trial with the resources that its number of networks asks for."""
    if trial.scale.for_networks is None:
        return trial
    return trial.changed(scale=trial.scale.resolved(networks(trial)))


def with_values(trial: TrialSpec, values: Mapping[str, Any]) -> TrialSpec:
    """The trial with dotted keys set to `values`, fractions rounded to 4 significant digits; its resources resolved.

    Raises:
        pydantic.ValidationError: it is none, which the values of a job's own distributions never lead to.
    """
    tree = from_plain(trial.model_dump(), Place("chosen"))
    for key, value in values.items():
        shortened = rounded(value) if isinstance(value, float) else value
        tree = put(tree, split(key), from_plain(shortened, Place("chosen")))
    return resolved(TrialSpec.model_validate_json(json.dumps(tree.plain())))


def complete(trials: Sequence[TrialSpec], template: TrialSpec | None) -> tuple[TrialSpec, ...]:
    """Each trial once, and after them those that they need, or that what is made from `template` does."""
    unique: dict[object, TrialSpec] = {}
    for trial in (*trials, *_prerequisites(trials, template)):
        unique.setdefault(trial.planned_identity(), trial)
    return tuple(unique.values())


def _prerequisites(trials: Sequence[TrialSpec], template: TrialSpec | None) -> list[TrialSpec]:
    needing = [*trials, *([resolved(template)] if template is not None else [])]
    return [other for trial in needing for other in trial.prerequisites()]


def _read(path: Path, problems: Problems) -> str:
    content = b""
    try:
        with path.open("rb") as file:  # a pipe, too: `run <(...)`
            content = file.read(_LONGEST + 1)
        if len(content) <= _LONGEST:
            return content.decode("utf-8-sig")
        problems.add(Place(str(path)), "", f"Should be a job file, of {as_bytes(_LONGEST)} at most.")
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        problems.add(Place(str(path)), "", f"Should be a job file that can be read: {reason}.")
    except UnicodeDecodeError as error:
        before = content[: error.start].split(b"\n")
        place = Place(str(path), len(before), len(before[-1]) + 1)
        problems.add(place, "", f"Should be UTF-8 text; there is a byte {content[error.start]:#04x} here.")
    problems.check()
    raise AssertionError


def _refuse_secrets(
    tree: LocatedValue, path: str | Path, text: str, overrides: Sequence[str], problems: Problems
) -> None:
    """Report URIs with credentials in them: as values, or else (for all is kept as given) in comments and overrides."""
    expected = "Holds a user, password or key, which would end up in records and logs; give them in the environment."
    secrets = list(_secrets(tree, ""))
    for key, node in secrets:
        problems.add_unreadable(node.at, key, expected)
    if not secrets and (start := secret_in(text)) is not None:
        before = text[:start].split("\n")
        problems.add(Place(str(path), len(before), len(before[-1]) + 1), "", expected)
    for option in overrides if not secrets else ():
        if secret_in(option) is not None:
            problems.add(Place(f"--set {option}"), "", expected)


def _secrets(tree: LocatedValue, key: str) -> Iterator[tuple[str, LocatedValue]]:
    """The texts that hold one, by key."""
    if isinstance(tree.value, str) and secret_in(tree.value) is not None:
        yield key, tree
    elif isinstance(tree.value, dict):
        for name, node in tree.value.items():
            yield from _secrets(node, f"{key}.{name}" if key else name)
    elif isinstance(tree.value, list):
        for index, node in enumerate(tree.value):
            yield from _secrets(node, f"{key}[{index}]")


def _frame(tree: LocatedValue, first: LocatedValue | None) -> LocatedValue:
    """The tree that is validated as the job: sections that the search space completes are as in the first trial."""
    if first is None:
        return tree
    completed = {section: first.get(section) for section in sections_in_search(tree)}
    return replace(tree, value=tree.value | {section: node for section, node in completed.items() if node is not None})


def _check_rows(tree: LocatedValue, problems: Problems) -> None:
    rows = tree.get("report", "rows")
    for node in (rows.value if isinstance(rows.value, list) else [rows]) if rows is not None else []:
        key = node.value
        if isinstance(key, str) and key not in TRIAL_KEYS:
            expected = f"Should be a key that trials have.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}"
            problems.add(node.at, "report.rows", expected, format_value(key))
