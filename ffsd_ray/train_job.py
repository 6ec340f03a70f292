"""Training a job: what its records lack, from the images that are read first to the last trial's end."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from rich.console import Console

from ffsd_ray import data
from ffsd_ray.config.images import check_same_images, described_images, with_fingerprints
from ffsd_ray.config.labels import trial_labels, values
from ffsd_ray.config.load import Plan
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, RecordsError, UserError
from ffsd_ray.interruption import Interrupted, postponed
from ffsd_ray.job_progress import JobProgress, relative_work
from ffsd_ray.job_resources import placed
from ffsd_ray.progress_view import open_view
from ffsd_ray.records.driver_lock import sole_driver
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.remaining import (
    completed_before,
    damaged_results,
    missing_weights,
    to_train,
    untrained,
    waves,
    with_template,
)
from ffsd_ray.train.before_training import check_before_training


def train_job(
    plan: Plan,
    console: Console,
    *,
    storage: str | None = None,
    resume: bool = False,
    verbose: bool = False,
) -> RunRecords:
    """Train every trial of a job that is not trained yet; return the run's records.

    Raises:
        UserError: something is wrong with the job, its images, the cluster or the storage, or there is a run already.
        Interrupted: Ctrl-C; the message says how far it came.
    """
    if plan.job.watch.services:
        # Imported only here, as the driver is.
        from ffsd_ray.launch.tracking.setup import check_services

        check_services(plan.job.watch)
    run = RunRecords(Store(storage or plan.job.records.storage).child(plan.job.name))
    run.store.check_writable()
    if not resume:
        _refuse_used(run)
    try:
        say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        plan, notes = placed(plan, _recorded_scale(run), verbose=verbose)
        plan = with_fingerprints(plan, progress=True)
        for line in described_images(plan):
            say(line)
        if run.exists():
            with suppress(DamagedRecords):  # written anew below; trials are found by what they compute
                check_same_images(plan, run.trials())
        for note in [*notes, *read_images(to_train(run, plan))]:
            say(f"Note: {note}")
        with sole_driver(run.store, say):
            if not resume:
                _refuse_used(run)  # another may have driven it to its end meanwhile
            _begin(run, plan)
            for damage in damaged_results(run):
                say(f"To be trained again: {damage}")
            left = untrained(run, plan)
            for missing in missing_weights(run, left):
                say(f"To be made again: {missing}")
            if plan.job.records.reuse:
                left = _reuse(run, left, len(plan.trials), say)
            _train(run, plan, left, console, verbose=verbose)
    except KeyboardInterrupt:
        raise Interrupted(_how_far(run, plan)) from None
    return run


def read_images(specs: Sequence[TrialSpec], *, fetch: bool = True) -> list[str]:
    """Read the trials' data sets here first: what is wrong with one is said once, and decoding shows its progress.

    Returns what is to be told of them and of what trains on them, each once.

    Raises:
        DataError: a data set cannot be read, or a trial not be trained on it.
    """
    notes: dict[str, None] = {}
    for settings in dict.fromkeys(spec.data for spec in specs):
        dataset = data.load(settings if fetch else settings.without_fetching(), progress=True)
        for spec in specs:
            if spec.data == settings:
                notes |= dict.fromkeys(check_before_training(spec, dataset))
    return list(notes)


def _refuse_used(run: RunRecords) -> None:
    if run.exists():
        states = run.states()
        raise RecordsError(
            f"{run.store.location}: a run is here already "
            f"({states.count('completed')} of {len(states)} trials completed).\n"
            "Go on with it: --resume.  Keep it and start another: --set name=NEW or --storage ELSEWHERE.  Or delete it."
        )


def _recorded_scale(run: RunRecords) -> ScaleSettings | None:
    """What a run that goes on has recorded of its section `scale`; None of a new one."""
    with suppress(DamagedRecords):  # written anew; trials are found by what they compute
        return run.scale() if run.exists() else None
    return None


def _begin(run: RunRecords, plan: Plan) -> None:
    specs = {spec.identity(): spec.model_dump() for spec in plan.trials}
    if plan.template is not None and run.exists():
        specs |= run.trials()  # those that were chosen so far
    run.begin(plan.text, plan.job.model_dump(), plan.overrides, specs)


def _reuse(run: RunRecords, specs: Sequence[TrialSpec], total: int, say: Callable[[str], None]) -> list[TrialSpec]:
    """Take over those of the trials that other runs have completed; return the others. `total`: trials of the job."""
    reused = run.reuse([spec.identity() for spec in specs], lambda message: say(f"Not reused: {message}"))
    for name, count in Counter(reused.values()).items():
        say(f"Reused from run {name}: {count} of {total} trials.")
    return [spec for spec in specs if spec.identity() not in reused]


def _train(run: RunRecords, plan: Plan, trials: Sequence[TrialSpec], console: Console, *, verbose: bool) -> None:
    console.print(f"Records: {run.store.location}", markup=False, highlight=False, soft_wrap=True)
    specs = with_template(plan, trials)
    if not specs:
        return
    names = trial_labels(plan.trials, plan.job.report.rows)
    primary_series = {spec.identity(): spec.method.primary_series for spec in specs}

    def announce(spec: TrialSpec) -> None:
        """A searcher has chosen this trial."""
        identity = spec.identity()
        run.add(identity, spec.model_dump())
        names[identity] = ", ".join([spec.method.label(), *values(spec, list(plan.job.search.random))])
        primary_series[identity] = spec.method.primary_series

    progress = JobProgress(relative_work(specs), done=completed_before(run, specs), total=plan.total)
    with open_view(console, names, primary_series, progress) as view:
        for wave, job in waves(plan, specs):
            if job.context == "local":
                from ffsd_ray.train.local import run_locally

                run_locally(wave, job, run, view)
            else:
                view.phase("starting Ray" if "RAY_ADDRESS" not in os.environ else "connecting to the cluster")
                # Imported only here: a machine without Ray runs local jobs. Whole, for an interrupted import may end in
                # any error.
                with postponed():
                    from ffsd_ray.launch.driver import Driver

                Driver(job, run, view, names, announce, verbose).train(wave)


def _how_far(run: RunRecords, plan: Plan) -> str:
    """The message after an interruption."""
    try:
        done = run.states().count("completed") if run.exists() else 0
    except UserError as error:  # of the records
        return f"Interrupted. {error}"
    return (
        f"Interrupted. {done} of {plan.total} trials are completed; the others go on from their last checkpoints with "
        "the same command and --resume."
    )
