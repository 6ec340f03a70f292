"""The best configuration of a run as a job file: --best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffsd_ray.base_settings import LONGEST_NAME
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.source.yaml_file import dump
from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.ranking import IMAGES, best, split_of
from ffsd_ray.report.tables.captions import images_of
from ffsd_ray.report.tables.groups import without_teachers
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.table import Table
from ffsd_ray.terminal import plain

#: Of the job's own sections those that say how trials are run, and not which ones or what becomes of the results.
_KEPT = ("context", "records", "failures", "watch")

#: In place of a file's name.
STDOUT = "-"


def best_job(job: Mapping[str, Any], table: Table, trials: Sequence[Trial], *, by_test: bool) -> str:
    """A job file that trains the best row of `table`, which is of one epoch, with the seeds that the run has for it.

    Best is the highest primary accuracy on the split that chose the epochs.

    Args:
        job: as `RunRecords.job` has it.
        trials: those of the run.
        by_test: rank by the test images, which is refused otherwise where no images are held out for validation.

    Raises:
        RecordsError: nothing to choose from, or nothing to choose by.
    """
    completed = [row for row in table.rows if row.primary is not None]
    if not completed:
        raise RecordsError(f"--best: no trial of {job['name']} has completed")
    images = list(dict.fromkeys(images_of(row.spec.data) for row in completed))
    if len(images) > 1:
        raise RecordsError(
            f"--best: accuracies on different images do not compare: {', '.join(images)}; choose with --where data=NAME"
        )
    if split_of(completed, "--best", by_test=by_test) == "test" and not by_test:
        raise RecordsError(
            f"--best: {job['name']} held out no images for validation, so it can be ranked by the test images only, "
            "which then no longer measure fairly what was chosen.\n"
            "Do it all the same: --by-test (or report.rank_by: test in the job file); the result says so.  "
            "Or train with data.validation above 0."
        )
    row = best(completed, by_test=by_test)
    assert row is not None
    identity = row.spec.identity()
    own = [trial.spec for trial in without_teachers(trials)]
    seeds = [spec.seed for spec in own if spec.configuration().identity() == identity]
    if not seeds:
        raise RecordsError(f"--best: these trials of {job['name']} are teachers, which other trials learn from")
    # on one line each, or the rest of a name would be part of the job
    lines = _comments(job, row, len(completed), seeds, by_test=by_test)
    comments = "".join(f"# {plain(line, keep='')}\n" for line in lines)
    return comments + dump(_job(job, row, seeds))


def _comments(job: Mapping[str, Any], row: Row, count: int, seeds: Sequence[int], *, by_test: bool) -> list[str]:
    assert row.primary is not None
    cell = row.primary.on(test=by_test)
    split = IMAGES["test" if by_test else row.selection]
    kind = "ranked by test accuracy" if by_test else "ranked by validation accuracy"
    lines = [
        f"The best of {count} configurations of {job['name']}, {kind}: {row.configuration}",
        f"{row.primary.column} {cell.text()} % on {split} at the {row.epoch} epoch, over seeds "
        f"{', '.join(map(str, row.seeds))}",
    ]
    if row.selection == "test":
        lines.append("The test images also chose the epoch, as the paper did.")
    file = f"model_{row.epoch}.safetensors"
    lines += [f"Weights, seed {seed}: trials/{trial}/{file}" for seed, trial in zip(row.seeds, row.trials, strict=True)]
    missing = [str(seed) for seed in seeds if seed not in row.seeds]
    return [*lines, f"Not completed: seed {', '.join(missing)}."] if missing else lines


def _job(job: Mapping[str, Any], row: Row, seeds: Sequence[int]) -> dict[str, Any]:
    """Job-file sections: the job's own without defaults, the trial's complete."""
    defaults = JobSpec(name="default").model_dump(mode="json")
    own = {name: job.get(name, defaults[name]) for name in _KEPT}
    changed = {name: _changed(value, defaults[name]) for name, value in own.items() if value != defaults[name]}
    spec = row.spec.model_dump(mode="json", exclude={"variant", "seed"})
    return {"name": f"{job['name'][: LONGEST_NAME - 5]}-best", **spec, "seed": list(seeds), **changed}


def _changed(value: Any, default: Any) -> Any:
    if not isinstance(value, Mapping) or not isinstance(default, Mapping):
        return value
    return {key: _changed(below, default.get(key)) for key, below in value.items() if below != default.get(key)}


def write_best(text: str, out: str) -> None:
    """To a file, whose name is printed, or to the standard output.

    Raises:
        JobError: the file cannot be written, or is there already.
    """
    if out == STDOUT:
        print(text, end="")
        return
    try:
        with Path(out).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise JobError(f"--best {out}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    print(out)
