"""Whether a job's scheduler and searcher can do with its trials what they are to do, and its variants are several."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ffsd_ray.config.inspection.group_info import columns
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.keys import NOT_IDENTITY_KEYS, did_you_mean
from ffsd_ray.config.optimisation import RECIPE
from ffsd_ray.config.searchers import MUTABLE, Asha, EveryTrial, GridSearcher, MedianStopping, Optuna, Pbt, Ranking
from ffsd_ray.config.source.located import LocatedValue
from ffsd_ray.config.source.problems import Problems, format_value
from ffsd_ray.config.trial import TrialSpec

_COLUMN = re.compile(r"(train|val|test)/[^/]+/(top1|top5|loss)|term/[^/]+/[^/]+")


def check_variants(job: LocatedValue, trials: Sequence[TrialSpec], problems: Problems) -> None:
    """A trial that two variants give would have two names."""
    names: dict[str, str] = {}
    for trial in trials:
        if trial.variant is None:
            continue
        first = names.setdefault(trial.identity(), trial.variant)
        node = job.get("search", "variants", trial.variant)
        if first != trial.variant and node is not None:
            expected = f"Gives a trial that variant {first} gives too; each should be something of its own."
            problems.add(node.key_at, f"search.variants.{trial.variant}", expected)


def check_search(
    job: JobSpec,
    tree: LocatedValue,
    trials: Sequence[TrialSpec],
    extremes: Mapping[tuple[str, ...], Sequence[TrialSpec]],
    problems: Problems,
) -> None:
    """`trials`: all that are known before; with Optuna an example of one. `extremes`: as an `Expansion` has them."""
    for part, settings, plain in (
        ("scheduler", job.search.scheduler, EveryTrial),
        ("searcher", job.search.searcher, GridSearcher),
    ):
        if isinstance(settings, plain):
            continue
        section = _SectionProblems(tree, part, problems)
        if job.context == "local":
            section.add("name", "Works through Ray only; leave it out of a local job")
        assert isinstance(settings, Ranking)
        _check_metric(settings, trials, section)
        if every := next((n for trial in trials if (n := trial.train.evaluate_every) > 1), None):
            section.add(
                "name", f"Ranks trials by every epoch's evaluation: train.evaluate_every should be 1, not {every}"
            )
        if isinstance(settings, Asha | MedianStopping):
            _check_shorter_than_training("grace_epochs", settings.grace_epochs, trials, section)
        if isinstance(settings, Pbt):
            _check_population(settings, trials, section)
            _check_teachers(("search", "scheduler", "mutate"), tree, trials, extremes, problems)
        if isinstance(settings, Optuna):
            _check_optuna(job, tree, problems)
            _check_teachers(("search", "random"), tree, trials, extremes, problems)


class _SectionProblems:
    """Reports problems with keys of `search.scheduler` or `search.searcher`."""

    def __init__(self, tree: LocatedValue, part: str, problems: Problems) -> None:
        self._tree, self._path, self._problems = tree, ("search", part), problems

    def add(self, key: str, expected: str) -> None:
        """Report a problem at a key, or at the section if the key is left out."""
        node, section = self._tree.get(*self._path, key), self._tree.get(*self._path)
        assert section is not None
        value = format_value(node.plain()) if node is not None and not isinstance(node.value, dict) else ""
        place = section.key_at if node is None else node.at if value else node.key_at
        self._problems.add(place, ".".join((*self._path, key)), f"{expected}.", value)

    def add_mutated(self, mutated: str, expected: str) -> None:
        """Report a problem at a key of `mutate`."""
        node = self._tree.get(*self._path, "mutate", mutated)
        assert node is not None
        self._problems.add(node.key_at, ".".join((*self._path, "mutate", mutated)), f"{expected}.")


def _check_metric(ranking: Ranking, trials: Sequence[TrialSpec], section: _SectionProblems) -> None:
    metric = ranking.metric
    if metric is not None and not _COLUMN.fullmatch(metric):
        section.add("metric", "Should be a column of the history, such as val/leader/top1 or term/leader/ce")
        return
    split = ranking.column("").partition("/")[0]
    if split == "test" and not ranking.by_test:
        section.add("metric", "These are the test images: rank by val/..., or set by_test: true")
    elif split != "test" and ranking.by_test:
        section.add("by_test", f"True ranks by the test images, and {metric} is none of theirs; leave one of them out")
    elif split == "val" and any(not trial.data.may_have_validation for trial in trials):
        section.add("metric", "No images are held out to rank by: set data.validation or by_test: true")
    for trial in trials if metric is not None else ():
        known = columns(trial)
        if known is not None and metric not in known:
            combination = f"{trial.method.name} on {trial.backbone.name}"
            section.add("metric", f"A trial of {combination} has no such column.{did_you_mean(metric, known)}")
            break


def _check_shorter_than_training(key: str, epochs: int, trials: Sequence[TrialSpec], section: _SectionProblems) -> None:
    longest = max((trial.train.epochs for trial in trials), default=None)
    if longest is not None and epochs >= longest:
        section.add(key, f"{epochs} should be less than the {longest} epochs of the longest trial")


def _check_population(pbt: Pbt, trials: Sequence[TrialSpec], section: _SectionProblems) -> None:
    _check_shorter_than_training("every_epochs", pbt.every_epochs, trials, section)
    if len(trials) == 1:
        section.add("name", "A population is 2 trials or more: give it seeds, a grid, or search.random")
    if any(not trial.scale.one_worker or trial.scale.launcher == "trainer" for trial in trials):
        section.add(
            "name", "A population trains in Tune's own processes: scale.workers: 1, scale.launcher: auto or trial"
        )
    unaligned = next((t.train.checkpoint_every for t in trials if pbt.every_epochs % t.train.checkpoint_every), None)
    if unaligned:
        expected = (
            f"Should be a multiple of train.checkpoint_every = {unaligned}: trials go on from each other's checkpoints"
        )
        section.add("every_epochs", expected)
    for key in pbt.mutate:
        if key not in MUTABLE:
            section.add_mutated(key, f"Cannot change while a trial runs; should be one of {', '.join(MUTABLE)}")
    different = _first_difference(trials)
    if different:
        allowed = f"Trials that go on from each other may differ in {', '.join(MUTABLE)} and seed"
        expected = f"{allowed}; these differ in {different}"
        section.add("name", expected)


def _check_teachers(
    part: tuple[str, ...],
    tree: LocatedValue,
    trials: Sequence[TrialSpec],
    extremes: Mapping[tuple[str, ...], Sequence[TrialSpec]],
    problems: Problems,
) -> None:
    """Report keys of the search space that would change, while trials run, the trials that they learn from."""
    for path, ends in extremes.items():
        node = tree.get(*path)
        if (
            path[:-1] == part
            and node is not None
            and any(_teacher_identities(end) != _teacher_identities(trials[0]) for end in ends)
        ):
            expected = (
                "Changes the trials that these learn from too (teachers, ensemble members), which are trained before "
                "them, once. Leave it out, or take a teacher from a file (method.teacher_weights)."
            )
            problems.add(node.key_at, ".".join(path), expected)


def _teacher_identities(trial: TrialSpec) -> list[str]:
    return [other.identity() for other in trial.prerequisites()]


def _first_difference(trials: Sequence[TrialSpec]) -> str | None:
    """A key in which trials differ, of those that decide what is computed and that no running trial may change."""
    contents = [_dotted_settings(trial) for trial in trials]
    passed = {*MUTABLE, *NOT_IDENTITY_KEYS, "seed"}
    keys = [key for key in dict.fromkeys(key for content in contents for key in content) if key not in passed]
    return next((key for key in keys if any(one.get(key) != contents[0].get(key) for one in contents)), None)


def _dotted_settings(trial: TrialSpec) -> dict[str, Any]:
    sections = {name: content for name, content in trial.model_dump().items() if isinstance(content, dict)}
    return {f"{name}.{key}": value for name, content in sections.items() for key, value in content.items()}


def _check_optuna(job: JobSpec, tree: LocatedValue, problems: Problems) -> None:
    if len(job.seed) > 1:
        node = tree.get("seed")
        assert node is not None
        expected = "Should be one seed: Optuna ranks single trials. Train what it finds best with several."
        problems.add(node.at, "seed", expected, format_value(job.seed))
    for key, distribution in job.search.random.items():
        node = tree.get("search", "random", key)
        if node is not None and any(isinstance(value, list | dict) for value in distribution.choice or ()):
            expected = "Optuna chooses between numbers, text, true, false and null only."
            problems.add(node.key_at, f"search.random.{key}", expected)
        if node is not None and key == RECIPE:
            # What it sets is set already in the trial that Optuna's choices are put into.
            expected = "Optuna chooses single settings; compare recipes in search.grid."
            problems.add(node.key_at, f"search.random.{key}", expected)
