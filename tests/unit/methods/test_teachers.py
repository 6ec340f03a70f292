"""Teachers: trials that are trained once and first, or files that must fit."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load

from ffsd_ray import data
from ffsd_ray.backbones import backbone, map_shapes
from ffsd_ray.card import Card
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import SEEDS, TrialSpec
from ffsd_ray.deployed import pack
from ffsd_ray.errors import JobError, TrialError
from ffsd_ray.methods import METHODS, Blueprint, TrainedOn
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.tables.table import result_table
from ffsd_ray.run import main
from ffsd_ray.train.build import build_method
from ffsd_ray.train.context import LocalContext
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.trainer import Trainer, train

from helpers.comparison import assert_equal
from helpers.forms import CLASSES, FORMS, spec_of
from helpers.specs import digits_spec
from helpers.workers import train_with

JOB = """
name: taught
context: local
data: {name: digits, image_size: 12, test_per_class: 6}
backbone: {name: resnet14}
train: {epochs: 1, batch_size: 16, steps_per_epoch: 2}
seed: [0, 1]
search:
  grid:
    method:
      - {name: kd}
      - {name: at, teacher: resnet20}
      - {name: end2, ensemble: 2}
      - {name: baseline}
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecords, list[TrialSpec]]:
    folder = tmp_path_factory.mktemp("taught")
    (folder / "job.yaml").write_text(JOB)
    plan = load_job(folder / "job.yaml")
    assert main([str(folder / "job.yaml"), "--storage", str(folder / "runs")]) == 0
    return RunRecords.open(str(folder / "runs" / "taught")), list(plan.trials)


@pytest.mark.thorough
def test_teachers_are_trials_trained_once_and_first(taught: tuple[RunRecords, list[TrialSpec]]) -> None:
    """KD's teachers and EnD²'s members are baselines with seeds of their own; the job's own baselines are others."""
    run, specs = taught
    alone = [(s.backbone.name, s.seed_label, s.is_teacher) for s in specs if s.method.name == "baseline"]
    assert sorted(alone) == [
        ("resnet14", "seed 0", False),
        ("resnet14", "seed 0, teacher 1", True),
        ("resnet14", "seed 0, teacher 2", True),
        ("resnet14", "seed 1", False),
        ("resnet14", "seed 1, teacher 1", True),
        ("resnet14", "seed 1, teacher 2", True),
        ("resnet20", "seed 0, teacher 1", True),
        ("resnet20", "seed 1, teacher 1", True),
    ]
    assert len(specs) == 8 + 3 * 2
    ended = {s.identity(): Path(run.trial(s.identity()).store.location, "result.json").stat().st_mtime for s in specs}
    last_teacher = max(ended[teacher.identity()] for s in specs for teacher in s.prerequisites())
    assert all(ended[s.identity()] >= last_teacher for s in specs if s.method.name != "baseline")
    for spec in specs:
        records = run.trial(spec.identity())
        checkpoint = records.checkpoints.latest()
        assert checkpoint is not None
        assert {key.partition(".")[0] for key in checkpoint["method"]} == {"student"}
        teachers = Trainer(spec, records, LocalContext(torch.device("cpu")), None)._method.teachers
        for teacher, needed in zip(teachers, spec.prerequisites(), strict=True):
            weights = load(run.trial(needed.identity()).store.read("model_last.safetensors"))
            assert_equal(dict(teacher.state_dict()), weights)
    last = [run.trial(s.identity()).store.read("model_last.safetensors") for s in specs]
    assert len(set(last)) == len(specs), "a student is not its teacher"


@pytest.mark.parametrize("form", ["kd", "at", *(f"end2 of {m}" for m in (2, 3, 7, 100))])
def test_no_teacher_is_a_trial_of_another_seed(form: str) -> None:
    """Seeds of teachers are never a job's, and no two students of other seeds have a teacher in common."""
    name, _, members = form.partition(" of ")
    method = {"name": name} | ({"ensemble": int(members)} if members else {})
    before: set[int] = set()
    for seed in (*range(40), 2**30, SEEDS - 2, SEEDS - 1):
        seeds = [teacher.seed for teacher in digits_spec(method, seed=seed).prerequisites()]
        assert len(set(seeds)) == len(seeds) == int(members or 1)
        assert min(seeds) >= SEEDS
        assert before.isdisjoint(seeds)
        before.update(seeds)


@pytest.mark.parametrize("name", ["kd", "at", "end2"])
def test_the_largest_seed_has_teachers(name: str, tmp_path: Path) -> None:
    """And the next one is refused, wherever a job says it."""
    job = tmp_path / "job.yaml"
    text = "name: x\ndata: {name: digits, image_size: 12}\nbackbone: {name: resnet14}\n"
    job.write_text(f"{text}method: {{name: {name}}}\nseed: {SEEDS - 1}\n")
    plan = load_job(job)
    assert [spec.seed for spec in plan.trials if not spec.is_teacher] == [SEEDS - 1]
    assert {TrialSpec.model_validate(spec.model_dump()).identity() for spec in plan.trials} >= plan.needed
    for said in (
        f"method: {{name: {name}}}\nseed: {SEEDS}\n",
        f"method: {{name: baseline}}\nseed: [0, {SEEDS}]\n",
        f"method: {{name: baseline}}\nsearch: {{grid: {{seed: [0, {SEEDS}]}}}}\n",
        f"method: {{name: {name}}}\nsearch: {{also: [{{seed: {SEEDS}}}]}}\n",
        f"method: {{name: baseline}}\nsearch: {{also: [{{seed: [{10**15}]}}]}}\n",
    ):
        job.write_text(text + said)
        with pytest.raises(JobError, match=rf"seed = \d+\n  Should be less than {SEEDS}\.\n\n1 problem$"):
            load_job(job)
    with pytest.raises(ValidationError, match=f"Should be less than {SEEDS}"):
        digits_spec({"name": name}, seed=SEEDS)


@pytest.mark.parametrize("method", [{"name": "kd"}, {"name": "at", "teacher": "resnet14"}, FORMS["end2"]], ids=str)
def test_initial_weights_of_teachers_are_others(method: dict[str, Any]) -> None:
    """Also where the teacher's backbone is named and is the student's."""
    spec = digits_spec(method)
    firsts = [next(build_method(s, CLASSES, 12).parameters()) for s in (spec, *spec.prerequisites())]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(firsts, 2))


@pytest.mark.thorough
def test_table_of_taught_methods(taught: tuple[RunRecords, list[TrialSpec]]) -> None:
    table = result_table(taught[0])
    kd_row = next(row for row in table.rows if row.spec.method.name == "kd" and row.epoch == "last")
    assert kd_row.primary_column == "Student"
    assert kd_row.cells["Gain"].mean == pytest.approx(kd_row.cells["Student"].mean - kd_row.cells["Baseline"].mean)
    size = f"{181108 - 90 * 65:,}"
    assert any(f"student of kd ({size})" in caption for caption in table.captions)
    [alone] = [row for row in table.rows if row.spec.method.name == "baseline" and row.epoch == "last"]
    assert (alone.configuration, alone.seeds) == ("baseline", (0, 1)), "those that are in a pair"
    teachers = [taught[0].trial(spec.identity()).result() for spec in taught[1] if spec.backbone.name == "resnet20"]
    mean = fmean(result["last"]["test/student/top1"] for result in teachers)
    [said] = [caption for caption in table.captions if caption.startswith("In no row: teachers and ensemble members")]
    assert f"resnet20 {mean:.2f}" in said
    assert "(n = 4)" in said, "of resnet14"
    for name in ("kd", "end2"):
        row = next(row for row in table.rows if row.spec.method.name == name)
        notes = [table.notes[number - 1] for number in row.notes["configuration"]]
        assert notes == [f"UNCONFIRMED {choice}" for choice in row.spec.method.assumptions]


def test_a_resumed_student_needs_its_teacher(tmp_path: Path) -> None:
    """Its own checkpoint has no teacher."""
    spec = spec_of("kd")
    train_with(spec, tmp_path / "student", stop_after=1)
    shutil.rmtree(tmp_path / spec.prerequisites()[0].identity())
    with pytest.raises(TrialError, match="which has not completed"):
        train(spec, TrialRecords(Store(str(tmp_path / "student"))), LocalContext(torch.device("cpu")))


def test_a_teacher_that_failed_is_named(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    text = JOB.replace("{epochs: 1,", "{epochs: 2, lr: 1e+12, weight_decay: 100,").partition("seed:")[0]
    job.write_text(text + "method: {name: kd}\n")
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 1
    run = RunRecords.open(str(tmp_path / "runs" / "taught"))
    student, teacher = load_job(job).trials
    assert "not finite" in run.trial(teacher.identity()).error()["message"]
    message = run.trial(student.identity()).error()["message"]
    assert message == f"this trial needs trial {teacher.identity()} (resnet14), which has not completed"
    assert any(message in note for note in result_table(run).notes)


@pytest.mark.thorough
def test_teacher_from_a_file(taught: tuple[RunRecords, list[TrialSpec]], tmp_path: Path) -> None:
    run, specs = taught
    baseline = next(s for s in specs if s.method.name == "baseline" and s.backbone.name == "resnet14")
    content = run.trial(baseline.identity()).store.read("model_best.safetensors")
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(content)

    def student(**settings: Any) -> TrialSpec:
        return digits_spec(
            {"name": "kd", "teacher_weights": str(file)} | settings, backbone="resnet14", epochs=1, batch_size=16
        )

    assert student().prerequisites() == ()
    records = train_with(student(), tmp_path / "right")
    [teacher] = Trainer(student(), records, LocalContext(torch.device("cpu")), None)._method.teachers
    assert_equal(dict(teacher.state_dict()), load(content))
    with pytest.raises(
        TrialError, match=r"teacher.safetensors: expected resnet20 for 10 classes, found resnet14 for 10"
    ):
        train_with(student(teacher="resnet20"), tmp_path / "wrong")
    planned = student()
    file.unlink()
    with pytest.raises(TrialError, match=r"method.teacher_weights: .*teacher.*expected a safetensors file"):
        train_with(planned, tmp_path / "missing")


@pytest.mark.parametrize(
    ("teacher", "student", "said"),
    [
        (
            {"classes": list("0123456798")},
            {},
            r"\(0, 1, .*7, 8, 9\), found 0, .*9, 8: class 8 is 9 to the teacher and 8",
        ),
        ({"classes": list("abcdefghij")}, {}, "class 0 is a to the teacher and 0 in the data set"),
        ({}, {"classes": tuple("abcdefghij")}, "class 0 is 0 to the teacher and a in the data set"),
        ({"source": "parquet"}, {"classes": tuple("abcdefghij")}, None),
        ({"classes": list("abcdefghij")}, {"source": "parquet"}, None),
        ({}, {}, None),
    ],
    ids=["other order", "named to the teacher", "named to the student", "no names", "no names here", "the same"],
)
def test_a_teacher_of_other_classes(
    teacher: dict[str, Any], student: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    """Classes are compared by name and order, where both data sets have names."""
    file, dataset = tmp_path / "teacher.safetensors", data.load(spec_of("kd").data)
    _teacher_file(file, dataset, **teacher)
    spec = digits_spec({"name": "kd", "teacher_weights": str(file)})
    known = TrainedOn(
        student.get("source", "digits"), student.get("classes", dataset.classes), dataset.mean, dataset.std
    )
    build = backbone("resnet14")
    method = METHODS["kd"](spec.method, Blueprint(build, map_shapes(build, 12), CLASSES, data=known))
    if said is None:
        method.load_teachers([])
    else:
        with pytest.raises(TrialError, match=said):
            method.load_teachers([])


def test_a_teacher_of_images_normalised_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, dataset = tmp_path / "teacher.safetensors", data.load(spec_of("kd").data)
    for mean, warnings in ((dataset.mean, 0), ((0.5, 0.25, 0.125), 1)):
        _teacher_file(file, dataset, mean=mean)
        spec = digits_spec({"name": "kd", "teacher_weights": str(file)}, backbone="resnet14")
        Engine(spec, dataset, torch.device("cpu")).method.load_teachers([])
        assert len(caplog.messages) == warnings
    assert "teacher.safetensors: the teacher was trained on images normalised with mean 0.5000, 0.2500" in caplog.text


def _teacher_file(file: Path, dataset: data.Dataset, source: str = "digits", **changes: Any) -> None:
    """A ResNet-20 as a trial leaves it."""
    card = Card(
        backbone="resnet14", classes=dataset.classes, mean=dataset.mean, std=dataset.std, image_size=12,
        precision="fp32", member="student", epoch=1, split="test", top1=50.0, spec={"data": {"name": source}},
        trial="none",
    )  # fmt: skip
    file.write_bytes(pack(backbone("resnet14")(CLASSES).state_dict(), dataclasses.replace(card, **changes)))


@pytest.mark.thorough
def test_a_teachers_file_counts_by_its_content(
    taught: tuple[RunRecords, list[TrialSpec]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by its path: another content is another trial, also under --resume, and is not taken for the first one."""
    run, specs = taught
    first, second = (
        run.trial(spec.identity()).store.read("model_last.safetensors")
        for spec in specs
        if spec.method.name == "baseline" and spec.backbone.name == "resnet14" and spec.seed < 2
    )
    one, other, job = tmp_path / "one.safetensors", tmp_path / "other.safetensors", tmp_path / "job.yaml"

    def planned(file: Path) -> TrialSpec:
        job.write_text(f"{JOB.partition('seed:')[0]}method: {{name: kd, teacher_weights: {file}}}\n")
        [spec] = load_job(job).trials
        return spec

    one.write_bytes(first)
    other.write_bytes(first)
    before = planned(one)
    assert planned(other).identity() == before.identity()
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 0
    other.write_bytes(second)
    after = planned(other)
    assert after.identity() != before.identity()
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--resume"]) == 0
    trials = RunRecords.open(str(tmp_path / "runs" / "taught"))
    assert list(trials.trials()) == [after.identity()]
    ends = [trials.trial(spec.identity()).store.read("model_last.safetensors") for spec in (before, after)]
    assert ends[0] != ends[1]
    other.write_bytes(first)  # between the job's loading and the trial's beginning
    with pytest.raises(TrialError, match="expected the file with the SHA-256"):
        train_with(after, tmp_path / "changed")
    assert TrialSpec.model_validate(after.model_dump()) == after, "records are read wherever the file has gone"
    other.unlink()
    capsys.readouterr()
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--resume"]) == 2
    assert "job.yaml:7" in (said := capsys.readouterr().err)
    assert "Should be a weights file that can be read here: no such file" in said
