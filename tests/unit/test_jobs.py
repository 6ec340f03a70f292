"""The job files: every one loads, and its smoke form trains every configuration that the whole form has."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ffsd_ray.config.inspection.dry_run import training_flops
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.smoke import smoke
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.launch.search.schedulers import scheduler
from ffsd_ray.methods import METHODS
from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main

from helpers import paths
from helpers.families import DIFFERENT
from helpers.flops import flops_per_image
from helpers.tiers import often

JOBS = paths.JOB_FILES

#: Those that stand for the others at every change, and before a merge.
FEW, SOME = {"cifar10_smoke", "quickstart"}, {"fig2"}
ALL = [pytest.param(job, id=job.stem, marks=[] if job.stem in FEW else [pytest.mark.thorough]) for job in JOBS]

#: The same where each takes many seconds.
COSTLY = [
    pytest.param(*job.values, id=job.id, marks=[*job.marks, *([] if job.id in FEW | SOME else [pytest.mark.slow])])
    for job in ALL
]

#: Digits in place of the data sets, at the smallest size that the job's networks take; one CPU worker a trial.
SIZES = {"table3": 64, "vgg16_end2": 32}


#: An ensemble of two in place of ten, each of which is a trial.
SMALLER = {"vgg16_end2": ["search.grid.method=[{name: baseline}, {name: ffsd}, {name: end2, ensemble: 2}]"]}


def overrides_for(job: Path) -> list[str]:
    size, held_out = SIZES.get(job.stem, 8), load_job(job).trials[0].data.validation
    data = f"data={{name: digits, image_size: {size}, validation: {held_out}}}"
    changes = [data, "scale={}", *SMALLER.get(job.stem, [])]
    return [*changes, "context=local"]


def rows(plan: Plan) -> set[str]:
    """The rows of the plan's table, by their names."""
    return {label.rpartition(", seed")[0] for label in trial_labels(plan.trials, None).values()}


def configured(spec: TrialSpec) -> tuple[object, ...]:
    """What the jobs vary, seeds apart."""
    varied = {"precision", "schedule", "weight_decay", "random_erasing", "label_smoothing", "ema"}
    return spec.variant, spec.method, spec.backbone, spec.train.model_dump(include=varied)


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


#: What no setting of the job says: ImageNet has so many training images, and 1000 classes.
IMAGENET = {"table3": (1_281_167, 1000)}


def flops(job: Path, spec: TrialSpec) -> float | None:
    """Of a trial's training, as `--dry-run` counts them."""
    if job.stem not in IMAGENET:
        return training_flops(spec)
    images, classes = IMAGENET[job.stem]
    assert spec.data.known_size is not None
    return flops_per_image(spec.method, spec.backbone.name, classes, spec.data.known_size) * images * spec.train.epochs


def cost_line(job: Path) -> str:
    """What the header says of the trials and of their operations, those known before any image is read."""
    plan = load_job(job)
    trials = f"{plan.total} trial{'s' * (plan.total > 1)}"
    if plan.needed:
        trials += f" ({len(plan.needed)} of them first, for others to learn from)"
    costs = [flops(job, spec) for spec in plan.trials]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return f"# Cost: {trials}."
    total = sum(known)
    unit, name = (1e15, "PFLOP") if total >= 1e15 else (1e12, "TFLOP")
    decimals = 0 if total >= 100 * unit else 1
    return f"# Cost: {trials}, {total / unit:,.{decimals}f} {name} of training (counted, not timed)."


@pytest.mark.parametrize("job", ALL)
def test_header_says_what_the_job_costs(job: Path) -> None:
    """Where it does not, the message has the line that the header should have."""
    said = [line for line in job.read_text().splitlines() if line.startswith("# Cost:")]
    line = cost_line(job)
    assert said == [line], f"{job} should say:\n{line}"


def test_the_papers_jobs_train_in_the_authors_precision() -> None:
    """Their headers say how to train in the other one."""
    papers = [job for job in JOBS if "# Paper" in job.read_text()]
    assert len(papers) == 13
    for job in papers:
        assert {spec.train.precision for spec in load_job(job).trials} == {"fp32"}
        assert "--set train.precision=bf16" in job.read_text()
        assert {spec.train.precision for spec in load_job(job, ["train.precision=bf16"]).trials} == {"bf16"}


def test_the_published_codes_rates_are_a_line_of_settings() -> None:
    """Those that the header of table3 gives."""
    (job,) = (job for job in JOBS if job.stem == "table3")
    (line,) = (line for line in job.read_text().splitlines() if line.startswith("#   --set train.lr"))
    settings = load_job(job, [part for part in line.split() if "=" in part]).trials[0].train
    assert (settings.lr, settings.warmup_epochs, settings.warmup_from) == (0.1, 4, 0.2)
    assert settings.milestones == [29, 59, 79]


#: Every method in a form that small networks take, and held-out images for those that learn from them.
METHOD_SECTIONS = [{"name": "kdcl", "target": "general"}, *({"name": name} for name in METHODS)]


def assert_valid(short: Plan, whole: Plan) -> None:
    """Every part of a smoke form would pass for a job file's."""
    JobSpec.model_validate(short.job.model_dump())
    for spec in (*short.trials, *short.extremes, *([short.template] if short.template else [])):
        assert TrialSpec.model_validate(spec.model_dump()) == spec
        assert (spec.train.epochs, spec.train.steps_per_epoch) == (2, 2)
    assert {spec.identity() for spec in short.trials} >= short.needed
    assert len(short.trials) <= len(whole.trials)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scale": {"workers": 1024}},
        {"scale": {"workers": {"min": 1, "max": 1000}}},
        {"train": {"warmup_epochs": 4, "milestones": [7, 8], "checkpoint_every": 5, "batch_size": 2}},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "backbone",
    often(
        ("resnet20", "vgg-16", "torchvision:alexnet"),
        [*DIFFERENT, "torchvision:inception_v3", "torchvision:alexnet"],
        others="slow",
    ),
)
def test_smoke_form_of_any_job_is_valid(backbone: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Of every backbone with every method, for large images of which no corner is left."""
    train = {"epochs": 10, "batch_size": 2048} | more.get("train", {})
    job = tmp_path / "job.yaml"
    content = {"name": "any", "backbone": {"name": backbone}, "search": {"grid": {"method": METHOD_SECTIONS}}}
    content |= {"data": {"name": "digits", "image_size": 224, "crop_padding": 70, "validation": 0.3}}
    job.write_text(yaml.safe_dump(content | more | {"train": train}))
    whole = load_job(job)
    short = smoke(whole)
    assert_valid(short, whole)
    assert {(s.method.name, s.backbone.name) for s in short.trials} == {
        (s.method.name, s.backbone.name) for s in whole.trials
    }
    sizes = {spec.data.known_size for spec in short.trials}
    assert all(size is not None and 64 < size <= 128 for size in sizes), "larger than the padding"


@pytest.mark.parametrize("size", often([80], [75, 80, 100, 224]))
def test_smoke_form_keeps_to_sizes_that_fit(size: int, tmp_path: Path) -> None:
    """All trials have one size, as long as none becomes larger than it was."""
    job = tmp_path / "job.yaml"
    names = "[resnet20, 'torchvision:inception_v3']"
    job.write_text(
        f"name: any\ndata: {{name: digits, image_size: {size}}}\nmethod: {{name: baseline}}\n"
        f"search: {{grid: {{backbone.name: {names}}}}}\n"
    )
    whole = load_job(job)
    assert {spec.data.known_size for spec in smoke(whole).trials} == {min(size, 80)}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_smoke_form_of_a_shipped_job_is_valid(job: Path) -> None:
    whole = load_job(job)
    assert_valid(smoke(whole), whole)


@pytest.mark.parametrize(
    "search",
    [
        "scheduler: {name: asha, grace_epochs: 9}",
        "scheduler: {name: median_stopping, grace_epochs: 9}",
        "scheduler: {name: pbt, every_epochs: 8, mutate: {train.lr: [0.1, 0.2]}}",
        "searcher: {name: optuna}, samples: 3, random: {train.lr: [0.1, 0.2], method.students: {integers: [2, 4]}}",
        "searcher: {name: optuna}, samples: 3, random: {train.lr: [1, 2]}, scheduler: {name: asha, grace_epochs: 9}",
    ],
)
def test_smoke_form_of_a_search(search: str, tmp_path: Path) -> None:
    """Ray's schedulers take it: one that first looks after the last epoch is refused by Ray, with an assertion."""
    job = tmp_path / "job.yaml"
    seeds = "" if "optuna" in search else "seed: [0, 1, 2]\n"
    job.write_text(
        "name: any\ndata: {name: digits, image_size: 16, validation: 0.2}\nbackbone: {name: resnet20}\n"
        "method: {name: ffsd}\ntrain: {epochs: 16, checkpoint_every: 4}\n"
        f"{seeds}search: {{{search}}}\n"
    )
    whole = load_job(job)
    short = smoke(whole)
    assert_valid(short, whole)
    trials = [*short.trials, *([short.template] if short.template else [])]
    scheduler(short.job.search.scheduler, trials)
    asked = short.job.search.scheduler
    first_look: int = getattr(asked, "grace_epochs", 0) or getattr(asked, "every_epochs", 1)
    for train in (spec.train for spec in trials):
        assert first_look < train.epochs
        assert train.checkpoint_every is not None
        assert first_look % train.checkpoint_every == 0


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_header_gives_command_and_expectation(job: Path) -> None:
    comment = [line for line in job.read_text().splitlines() if line.startswith("#")]
    assert any(str(job.relative_to(paths.PROJECT)) in line for line in comment)
    assert any(line.startswith(("# Paper:", "# Paper,", "# Paper (", "# Expected:", "# Cost:")) for line in comment)


@pytest.mark.parametrize("job", COSTLY)
def test_smoke_form(job: Path, tmp_path: Path) -> None:
    """In this process, without Ray."""
    settings = [argument for setting in overrides_for(job) for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0
    run = RunRecords.open(str(tmp_path / f"{load_job(job).job.name}-smoke"))
    assert {run.trial(identity).state() for identity in run.trials()} == {"completed"}


@pytest.mark.ray
@pytest.mark.slow
def test_smoke_form_through_ray(tmp_path: Path) -> None:
    job = next(job for job in JOBS if job.stem == "fig2")
    settings = [argument for setting in overrides_for(job)[:-1] for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_every_smoke_form_through_ray(job: Path, tmp_path: Path) -> None:
    settings = [argument for setting in overrides_for(job)[:-1] for argument in ("--set", setting)]
    assert main([str(job), "--smoke", "--storage", str(tmp_path), *settings]) == 0
