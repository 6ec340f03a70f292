"""What of a job is still to be trained, by the records of its run."""

from collections.abc import Sequence
from itertools import chain

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.load import Plan
from ffsd_ray.config.search import SearchSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, MissingRecords
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import parallel_map


def untrained(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The planned trials that have no result, or whose weights are missing.

    A trial that a scheduler stopped has none; it is trained to its end only where others learn from it.
    """
    needed = plan.needed

    def is_untrained(identity: str) -> bool:
        trial = run.trial(identity)
        if trial.state() != "completed":
            return True
        return bool(trial.missing_weights()) and (identity in needed or not trial.was_stopped())

    results = parallel_map(lambda spec: is_untrained(spec.identity()), plan.trials)
    return [spec for spec, still_untrained in zip(plan.trials, results, strict=True) if still_untrained]


def with_template(plan: Plan, trials: Sequence[TrialSpec]) -> list[TrialSpec]:
    """The trials, and what those are made from that are chosen one after the other."""
    return [*trials, *([plan.template] if plan.template is not None else [])]


def to_train(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The trials that neither this run nor another that may be reused has completed."""
    specs = with_template(plan, untrained(run, plan))
    if not plan.job.records.reuse:
        return specs
    reusable = run.completed_elsewhere([spec.identity() for spec in specs])
    return [spec for spec in specs if spec.identity() not in reusable]


def waves(plan: Plan, trials: Sequence[TrialSpec]) -> list[tuple[list[TrialSpec], JobSpec]]:
    """The trials that others learn from, each to its end without a scheduler or searcher; then those."""
    needed = plan.needed
    first = [trial for trial in trials if trial.identity() in needed]
    then = [trial for trial in trials if trial.identity() not in needed]
    straight = plan.job.changed(search=SearchSettings())
    return [(wave, job) for wave, job in ((first, straight), (then, plan.job)) if wave]


def completed_before(run: RunRecords, specs: Sequence[TrialSpec]) -> int:
    """How many trials have completed, those that a searcher chose among them."""
    again = {spec.identity() for spec in specs}
    others = [name for name in run.trials() if name not in again]
    return parallel_map(lambda name: run.trial(name).state(), others).count("completed")


def damaged_results(run: RunRecords) -> list[str]:
    """Messages on damaged results, which do not count, each naming the file."""

    def damage(identity: str) -> str | None:
        try:
            run.trial(identity).result()
        except MissingRecords:
            return None
        except DamagedRecords as error:
            return str(error)
        return None

    return [message for message in parallel_map(damage, run.trials()) if message is not None]


def missing_weights(run: RunRecords, specs: Sequence[TrialSpec]) -> list[str]:
    """The weights files that those of the trials lack which have completed."""

    def missing(spec: TrialSpec) -> list[str]:
        trial = run.trial(spec.identity())
        if trial.state() != "completed" or trial.was_stopped():
            return []
        return [f"{trial.store.location}/{name}, which is missing" for name in trial.missing_weights()]

    return list(chain.from_iterable(parallel_map(missing, specs)))
