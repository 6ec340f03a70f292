"""The job files: every one loads, and its smoke form trains every configuration that the whole form has."""

from pathlib import Path

import pytest

from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main
from ffsd_ray.spec.labels import trial_labels
from ffsd_ray.spec.load import Plan, load_job
from ffsd_ray.spec.smoke import smoke
from ffsd_ray.spec.trial import TrialSpec

JOBS = sorted((Path(__file__).resolve().parents[1] / "jobs").glob("*.yaml"))

#: Digits in place of the data sets, at the smallest size that the job's networks take; one CPU worker a trial.
SIZES = {"table3": 64, "vgg16_end2": 32}


#: An ensemble of two in place of ten, each of which is a trial.
SMALLER = {"vgg16_end2": ["search.grid.method=[{name: baseline}, {name: ffsd}, {name: end2, ensemble: 2}]"]}


def here(job: Path) -> list[str]:
    size, held_out = SIZES.get(job.stem, 8), load_job(job).trials[0].data.validation
    data = f"data={{name: digits, image_size: {size}, validation: {held_out}}}"
    changes = [data, "scale={}", *SMALLER.get(job.stem, [])]
    return [*changes, "context=local"]


def rows(plan: Plan) -> set[str]:
    """The rows of the plan's table, by their names."""
    return {label.rpartition(", seed")[0] for label in trial_labels(plan.trials, None).values()}


def configured(spec: TrialSpec) -> tuple[object, ...]:
    """What the jobs vary, seeds apart."""
    return spec.method, spec.backbone, spec.train.precision


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_smoke_keeps_every_row(job: Path) -> None:
    whole = load_job(job)
    short = smoke(whole)
    assert rows(short) == rows(whole)
    one_each = {spec.configuration().identity(): spec for spec in reversed(short.trials)}.values()
    assert len(one_each) == len({spec.configuration().identity() for spec in whole.trials})
    needed = {other.identity() for spec in one_each for other in spec.prerequisites()}
    assert {spec.identity() for spec in short.trials} == needed | {spec.identity() for spec in one_each}
    for spec in short.trials:
        original = next(one for one in whole.trials if configured(one) == configured(spec))
        changed = spec.model_dump() | {"seed": original.seed, "train": original.train.model_dump()}
        changed["data"] = original.data.model_dump()
        assert changed == original.model_dump(), "only seeds, epochs, steps, image size and batch size change"
        kept = {"lr", "momentum", "weight_decay", "precision", "batch_norm", "adam_lr", "fusion_weight_decay"}
        assert spec.train.model_dump(include=kept) == original.train.model_dump(include=kept)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_header_gives_command_and_expectation(job: Path) -> None:
    comment = [line for line in job.read_text().splitlines() if line.startswith("#")]
    assert any(f"jobs/{job.name}" in line for line in comment)
    assert any(line.startswith(("# Paper:", "# Paper,", "# Paper (", "# Expected:", "# Cost:")) for line in comment)


@pytest.mark.parametrize(
    "job",
    # those of large networks, or of many, take minutes
    [
        pytest.param(job, marks=pytest.mark.slow if job.stem in ("grid_lambda", "table3", "vgg16_end2") else ())
        for job in JOBS
    ],
    ids=lambda job: job.stem,
)
def test_smoke_form(job: Path, tmp_path: Path) -> None:
    """In this process, without Ray."""
    settings = [argument for setting in here(job) for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0
    run = RunRecords.open(str(tmp_path / f"{job.stem}-smoke"))
    assert {run.trial(identity).state() for identity in run.trials()} == {"completed"}


@pytest.mark.ray
def test_smoke_form_through_ray(tmp_path: Path) -> None:
    job = next(job for job in JOBS if job.stem == "fig2")
    settings = [argument for setting in here(job)[:-1] for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_every_smoke_form_through_ray(job: Path, tmp_path: Path) -> None:
    settings = [argument for setting in here(job)[:-1] for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0
