"""`python -m ffsd_ray.run JOB`: train every trial of a job and print its table."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from ffsd_ray import data
from ffsd_ray.command import command
from ffsd_ray.config.images import check_same_images, described_images, with_fingerprints
from ffsd_ray.config.inspection.dry_run import describe
from ffsd_ray.config.inspection.memory import memory_problem
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.labels import trial_labels, values
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.search import SearchSettings
from ffsd_ray.config.smoke import smoke
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, DataAway, DataMissing, JobError, MissingRecords, RecordsError, UserError
from ffsd_ray.interruption import Interrupted, postponed
from ffsd_ray.job_progress import JobProgress, relative_work
from ffsd_ray.job_resources import check_device, idle_parts, with_resources
from ffsd_ray.progress_view import open_view
from ffsd_ray.records.driver_lock import sole_driver
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.terminal import Screen
from ffsd_ray.train.before_training import check_before_training

FINISHED, SOME_FAILED = 0, 1


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all trials finished; 1 some failed, or cluster or storage went away; 2 the job file or an argument
    is wrong; 130 interrupted.
    """
    arguments = build_parser().parse_args(argv)
    plan = load_job(arguments.job, arguments.set)
    if arguments.smoke:
        plan = smoke(plan)
    console = Screen(file=sys.stdout)  # this stream, also while Tune's own printing is turned away
    if arguments.dry_run:
        plan, notes = with_resources(plan, ask_cluster=False)
        notes += [*check_memory(plan), *idle_parts(plan)]
        plan, told = _looked_at(plan)
        console.print(describe(plan))
        for note in [*notes, *told]:
            console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)
        return FINISHED
    run = train_job(
        plan,
        console,
        storage=arguments.storage,
        resume=arguments.resume,
        verbose=arguments.verbose,
    )
    # Only now: pandas takes a while to import, which --help and --dry-run need not wait for.
    from ffsd_ray.report.best_model import keep_best_model, outcome
    from ffsd_ray.report.tables.show import tell
    from ffsd_ray.report.tables.summary import Summary
    from ffsd_ray.report.tables.table import result_table
    from ffsd_ray.report.tables.terminal import render_terminal

    table = result_table(run)
    status = tell(table.damages)
    console.print(render_terminal(Summary(table)))
    for line in outcome(run, keep_best_model(run, table)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return status if all(state == "completed" for state in _states(run)) else SOME_FAILED


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
        plan, notes = with_resources(plan, _recorded_scale(run), verbose=verbose)
        if plan.job.context == "local":
            check_device(plan)
        notes += [*check_memory(plan), *idle_parts(plan)]
        plan = with_fingerprints(plan, progress=True)
        for line in described_images(plan):
            say(line)
        if run.exists():
            with suppress(DamagedRecords):  # written anew below; trials are found by what they compute
                check_same_images(plan, run.trials())
        for note in [*notes, *_read_images(_to_train(run, plan))]:
            say(f"Note: {note}")
        with sole_driver(run.store, say):
            if not resume:
                _refuse_used(run)  # another may have driven it to its end meanwhile
            _begin(run, plan)
            for damage in _damaged_results(run):
                say(f"To be trained again: {damage}")
            for missing in _missing_weights(run, plan):
                say(f"To be made again: {missing}")
            if plan.job.records.reuse:
                _reuse(run, plan, say)
            _train(run, plan, console, verbose=verbose)
    except KeyboardInterrupt:
        raise Interrupted(_how_far(run, plan)) from None
    return run


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffsd run", description="Train every trial of a job file.")
    parser.add_argument("job", type=Path, help="the job file (YAML)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, e.g. train.epochs=2; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the trials and what they cost; start nothing")
    parser.add_argument(
        "--smoke", action="store_true", help="every configuration for 2 epochs of 2 steps, one seed each"
    )
    parser.add_argument("--storage", metavar="DIR|URI", help="where the run's folder goes, instead of records.storage")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the job's folder")
    parser.add_argument("--verbose", action="store_true", help="show Ray's own messages")
    return parser


def _refuse_used(run: RunRecords) -> None:
    if run.exists():
        trials = _states(run)
        raise RecordsError(
            f"{run.store.location}: a run is here already "
            f"({trials.count('completed')} of {len(trials)} trials completed).\n"
            "Go on with it: --resume.  Keep it and start another: --set name=NEW or --storage ELSEWHERE.  Or delete it."
        )


def _recorded_scale(run: RunRecords) -> ScaleSettings | None:
    """What a run that goes on has recorded of its section `scale`; None of a new one."""
    with suppress(DamagedRecords):  # written anew; trials are found by what they compute
        return run.scale() if run.exists() else None
    return None


def check_memory(plan: Plan) -> list[str]:
    """Notes on trials that this machine could not hold, where another one may be meant.

    Raises:
        JobError: there is no other one.
    """
    found = {f"{trial.method.label()}: {why}" for trial in plan.specs if (why := memory_problem(trial))}
    if not found:
        return []
    if plan.job.context == "ray" and os.environ.get("RAY_ADDRESS"):
        return sorted(found)
    keys = "train.batch_size, data.image_size, method.students, scale.workers"
    on_gpu = any(trial.scale.uses_gpu for trial in plan.specs)
    instead = " Or train on the CPU: scale.gpus_per_worker: 0." if on_gpu else ""
    raise JobError("\n".join(sorted(found)) + f"\nLess of it: {keys}.{instead}")


def _looked_at(plan: Plan) -> tuple[Plan, list[str]]:
    """The plan as it would be run, and what is to be told of its images where they are at hand.

    Nothing is fetched from elsewhere.

    Raises:
        DataError: the images are at hand and a data set is wrong, or a trial cannot be trained on it.
    """
    try:
        plan = with_fingerprints(plan, progress=True, fetch=False)
        return plan, _read_images([*plan.trials, *([plan.template] if plan.template else [])], fetch=False)
    except (DataMissing, DataAway) as error:
        return plan, [f"the images were not looked at: {error}"]


def _to_train(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The trials that neither this run nor another that may be reused has completed."""
    pending = _pending(run, plan)
    if not plan.job.records.reuse:
        return pending
    reusable = run.completed_elsewhere([spec.identity() for spec in pending])
    return [spec for spec in pending if spec.identity() not in reusable]


def _read_images(specs: Sequence[TrialSpec], *, fetch: bool = True) -> list[str]:
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


def _begin(run: RunRecords, plan: Plan) -> None:
    specs = {spec.identity(): spec.model_dump() for spec in plan.trials}
    if plan.template is not None and run.exists():
        specs |= run.trials()  # those that were chosen so far
    run.begin(plan.text, plan.job.model_dump(), plan.overrides, specs)


def _damaged_results(run: RunRecords) -> Iterator[str]:
    """Messages on damaged results, which do not count, each naming the file."""
    for identity in run.trials():
        try:
            run.trial(identity).result()
        except MissingRecords:
            pass
        except DamagedRecords as damage:
            yield str(damage)


def _missing_weights(run: RunRecords, plan: Plan) -> Iterator[str]:
    """The weights files that completed trials lack."""
    for spec in _untrained(run, plan):
        trial = run.trial(spec.identity())
        if trial.state() == "completed" and not trial.was_stopped():
            yield from (f"{trial.store.location}/{name}, which is missing" for name in trial.missing_weights())


def _reuse(run: RunRecords, plan: Plan, say: Callable[[str], None]) -> None:
    untrained = [spec.identity() for spec in _untrained(run, plan)]
    reused = run.reuse(untrained, lambda message: say(f"Not reused: {message}"))
    for name, count in Counter(reused.values()).items():
        say(f"Reused from run {name}: {count} of {len(plan.trials)} trials.")


def _train(run: RunRecords, plan: Plan, console: Console, *, verbose: bool) -> None:
    console.print(f"Records: {run.store.location}", markup=False, highlight=False, soft_wrap=True)
    pending = _pending(run, plan)
    if not pending:
        return
    names = trial_labels(plan.trials, plan.job.report.rows)
    primary_series = {spec.identity(): spec.method.primary_series for spec in pending}

    def announce(spec: TrialSpec) -> None:
        """A searcher has chosen this trial."""
        identity = spec.identity()
        run.add(identity, spec.model_dump())
        names[identity] = ", ".join([spec.method.label(), *values(spec, list(plan.job.search.random))])
        primary_series[identity] = spec.method.primary_series

    progress = JobProgress(relative_work(pending), done=_done(run, pending), total=plan.total)
    with open_view(console, names, primary_series, progress) as view:
        for wave, job in _waves(plan, pending):
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


def _done(run: RunRecords, pending: Sequence[TrialSpec]) -> int:
    """How many trials have completed, those that a searcher chose among them."""
    again = {spec.identity() for spec in pending}
    return sum(name not in again and run.trial(name).state() == "completed" for name in run.trials())


def _pending(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The trials still to be trained; of those that are chosen one after the other, what they are made from."""
    return [*_untrained(run, plan), *([plan.template] if plan.template is not None else [])]


def _untrained(run: RunRecords, plan: Plan) -> list[TrialSpec]:
    """The planned trials that have no result, or whose weights are missing.

    A trial that a scheduler stopped has none; it is trained to its end only where others learn from it.
    """
    needed = plan.needed
    records = {spec.identity(): run.trial(spec.identity()) for spec in plan.trials}
    return [
        spec
        for spec in plan.trials
        for trial in [records[spec.identity()]]
        if trial.state() != "completed"
        or (trial.missing_weights() and (spec.identity() in needed or not trial.was_stopped()))
    ]


def _waves(plan: Plan, trials: Sequence[TrialSpec]) -> list[tuple[list[TrialSpec], JobSpec]]:
    """The trials that others learn from, each to its end without a scheduler or searcher; then those."""
    needed = plan.needed
    first = [trial for trial in trials if trial.identity() in needed]
    then = [trial for trial in trials if trial.identity() not in needed]
    straight = plan.job.changed(search=SearchSettings())
    return [(wave, job) for wave, job in ((first, straight), (then, plan.job)) if wave]


def _how_far(run: RunRecords, plan: Plan) -> str:
    """The message after an interruption."""
    try:
        done = _states(run).count("completed") if run.exists() else 0
    except UserError as error:  # of the records
        return f"Interrupted. {error}"
    return (
        f"Interrupted. {done} of {plan.total} trials are completed; the others go on from their last checkpoints with "
        "the same command and --resume."
    )


def _states(run: RunRecords) -> list[str]:
    return [run.trial(identity).state() for identity in run.trials()]


if __name__ == "__main__":
    sys.exit(main())
