"""Loading a job file: from text to validated trials."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ffsd_ray.spec.expand import expand, override, touched
from ffsd_ray.spec.job import JobSpec
from ffsd_ray.spec.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.spec.problems import Place, Problems, shown
from ffsd_ray.spec.tree import Node
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.spec.wording import validate
from ffsd_ray.spec.yaml_file import parse


@dataclass(frozen=True)
class Plan:
    """A job that is right: its trials in order, each identity once; the file as given, and what was set over it.

    Where the grid sets single keys of a section, `job` has that section as the first trial has it.
    """

    job: JobSpec
    trials: tuple[TrialSpec, ...]
    text: str
    overrides: tuple[str, ...]


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a job file; each of `overrides` is a `dotted.key=value` that goes over what the file says.

    Raises:
        JobError: everything that is wrong with the file and the overrides, each with its place.
    """
    problems = Problems()
    text = _read(Path(path), problems)
    tree = parse(text, lambda line, column: Place(str(path), line, column), problems)
    if tree is not None and not isinstance(tree.value, dict):
        said = "The file is empty" if tree.value is None else f"The whole file is {shown(tree.plain())}"
        problems.add(tree.at, "", f"{said}; a job is sections with keys, of which `name: ...` is the first.")
        tree = None
    if tree is None:
        problems.check()
    assert tree is not None
    tree = override(tree, overrides, problems)
    trees = expand(tree, problems)
    job = validate(JobSpec, _frame(tree, trees), problems)
    if job is not None:
        _check_rows(job, tree, problems)
        if job.context == "local" and job.scale.workers > 1:
            node = tree.get("scale", "workers")
            assert node is not None
            problems.add(node.at, "scale.workers", "Should be 1 with `context: local`.", shown(job.scale.workers))
        if job.context == "local":
            for service in job.watch.services:
                node = tree.get("watch", service)
                assert node is not None
                problems.add(node.key_at, f"watch.{service}", "Works through Ray only; leave it out of a local job.")
    trials = [validate(TrialSpec, trial, problems, in_trial=True) for trial in trees]
    problems.check(len(trials))
    assert job is not None
    return Plan(job, complete([trial for trial in trials if trial is not None]), text, tuple(overrides))


def complete(trials: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Each trial once, and after them those that they need and that are not among them."""
    needed = [other for trial in trials for other in trial.prerequisites()]
    unique: dict[str, TrialSpec] = {}
    for trial in (*trials, *needed):
        unique.setdefault(trial.identity(), trial)
    return tuple(unique.values())


def _read(path: Path, problems: Problems) -> str:
    content = b""
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        problems.add(Place(str(path)), "", f"Should be a job file that can be read: {reason}.")
    except UnicodeDecodeError as error:
        before = content[: error.start].split(b"\n")
        place = Place(str(path), len(before), len(before[-1]) + 1)
        problems.add(place, "", f"Should be UTF-8 text; there is a byte {content[error.start]:#04x} here.")
    problems.check()
    raise AssertionError


def _frame(tree: Node, trials: list[Node]) -> Node:
    """What is validated as the job: a section that only the grid completes is seen as the first trial has it."""
    if not trials:
        return tree
    completed = {section: trials[0].get(section) for section in touched(tree)}
    return replace(tree, value=tree.value | {section: node for section, node in completed.items() if node is not None})


def _check_rows(job: JobSpec, tree: Node, problems: Problems) -> None:
    for index, key in enumerate(job.report.rows or []):
        if key not in TRIAL_KEYS:
            node = tree.get("report", "rows", index) or tree.get("report", "rows")
            assert node is not None
            expected = f"Should be a key that trials have.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}"
            problems.add(node.at, "report.rows", expected, shown(key))


def value_at(spec: BaseModel, dotted: str) -> Any:
    """The value of a dotted key; None, too, where the trial's kind of section has no such key."""
    value: Any = spec
    for key in dotted.split("."):
        if not isinstance(value, BaseModel) or key not in type(value).model_fields:
            return None
        value = getattr(value, key)
    return value


def varying(trials: Sequence[TrialSpec]) -> list[str]:
    """The dotted keys that tell the trials apart, in the order of the spec; `seed`, if it is one, comes last.

    A key counts among the trials that have it. One that differs only because two kinds have different defaults does
    not count: the kind's `name` says as much.
    """
    return [key for key in TRIAL_KEYS if _is_leaf(key) and _varies(trials, key)]


def _is_leaf(key: str) -> bool:
    return "." in key or key == "seed"


def _varies(trials: Sequence[TrialSpec], key: str) -> bool:
    section, _, name = key.rpartition(".")
    holders = [value_at(trial, section) if section else trial for trial in trials]
    having = [holder for holder in holders if name in type(holder).model_fields]
    values = [getattr(holder, name) for holder in having]
    if all(value == values[0] for value in values):
        return False
    defaults = [type(holder).model_fields[name].get_default(call_default_factory=True) for holder in having]
    return name == "name" or values != defaults
