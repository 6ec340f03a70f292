"""What of a job is still to be trained, by the records of its run."""

from collections.abc import Iterator, Sequence

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.load import Plan
from ffsd_ray.config.search import SearchSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, MissingRecords
from ffsd_ray.records.run import RunRecords


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

    return [spec for spec in plan.trials if is_untrained(spec.identity())]


def pending(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The trials still to be trained; of those that are chosen one after the other, what they are made from."""
    return [*untrained(run, plan), *([plan.template] if plan.template is not None else [])]


def to_train(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The trials that neither this run nor another that may be reused has completed."""
    specs = pending(run, plan)
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
    return sum(name not in again and run.trial(name).state() == "completed" for name in run.trials())


def damaged_results(run: RunRecords) -> Iterator[str]:
    """Messages on damaged results, which do not count, each naming the file."""
    for identity in run.trials():
        try:
            run.trial(identity).result()
        except MissingRecords:
            pass
        except DamagedRecords as damage:
            yield str(damage)


def missing_weights(run: RunRecords, plan: Plan) -> Iterator[str]:
    """The weights files that completed trials lack."""
    for spec in untrained(run, plan):
        trial = run.trial(spec.identity())
        if trial.state() == "completed" and not trial.was_stopped():
            yield from (f"{trial.store.location}/{name}, which is missing" for name in trial.missing_weights())
