"""`python -m ffsd_ray.run JOB`: train every trial of a job and print its table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ffsd_ray.command import command
from ffsd_ray.config.images import with_fingerprints
from ffsd_ray.config.inspection.dry_run import describe
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.smoke import smoke
from ffsd_ray.errors import DataAway, DataMissing
from ffsd_ray.job_resources import placed
from ffsd_ray.terminal import Screen
from ffsd_ray.train_job import read_images, train_job

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
        plan, notes = placed(plan, ask_cluster=False)
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
    return status if all(state == "completed" for state in run.states()) else SOME_FAILED


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


def _looked_at(plan: Plan) -> tuple[Plan, list[str]]:
    """The plan as it would be run, and what is to be told of its images where they are at hand.

    Nothing is fetched from elsewhere.

    Raises:
        DataError: the images are at hand and a data set is wrong, or a trial cannot be trained on it.
    """
    try:
        plan = with_fingerprints(plan, progress=True, fetch=False)
        return plan, read_images([*plan.trials, *([plan.template] if plan.template else [])], fetch=False)
    except (DataMissing, DataAway) as error:
        return plan, [f"the images were not looked at: {error}"]


if __name__ == "__main__":
    sys.exit(main())
