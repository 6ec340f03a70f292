"""What other tools call a key leads to ours, and never to one that is refused; one mistake hides no other."""

import re
from pathlib import Path

import pytest

from ffsd_ray.config.keys import JOB_KEYS, SYNONYMS
from ffsd_ray.config.load import load_job
from ffsd_ray.errors import JobError

BASE = {"name": "j", "data": "digits", "backbone": "resnet8", "method": "ffsd"}


def written(tmp_path: Path, **lines: str) -> Path:
    job = tmp_path / "job.yaml"
    job.write_text("".join(f"{key}: {value}\n" for key, value in (BASE | lines).items()))
    return job


def told(job: Path) -> str:
    with pytest.raises(JobError) as refused:
        load_job(job)
    return str(refused.value)


def test_they_lead_to_keys_that_there_are() -> None:
    assert set(SYNONYMS.values()) <= set(JOB_KEYS)
    assert not SYNONYMS.keys() & {key.rpartition(".")[2] for key in JOB_KEYS}


@pytest.mark.parametrize(
    ("wrong", "value", "hint"),
    [
        ("model", "resnet14", "backbone"),
        ("gpus", "1", "scale.gpus_per_worker"),
        ("amp", "true", "train.precision: bf16"),
        ("n", "3", "method.students"),
        ("T", "4", "method.temperature"),
        ("lr_schedule", "cosine", "train.schedule"),
        ("optimizer", "sgd", "train.optimiser"),
        ("device", "cuda", "scale.gpus_per_worker: 1"),
        ("seeds", "[1, 2]", "seed"),
    ],
)
def test_what_a_hint_says_is_accepted(wrong: str, value: str, hint: str, tmp_path: Path) -> None:
    assert f"Did you mean `{hint}`?" in told(written(tmp_path, **{wrong: value}))
    key, _, hinted = hint.partition(": ")
    assert load_job(written(tmp_path), [f"{key}={hinted or value}"]).trials


@pytest.mark.parametrize(
    ("section", "value", "hint"),
    [
        ("train", "{amp: true}", "precision: bf16"),
        ("train", "{lr_schedule: cosine}", "schedule"),
        ("train", "{gpus: 1}", "scale.gpus_per_worker"),
        ("train", "{model: resnet32}", "backbone"),
        ("method", "{name: ffsd, n: 3}", "students"),
        ("method", "{name: dml, T: 3}", "temperature"),
    ],
)
def test_hints_inside_a_section(section: str, value: str, hint: str, tmp_path: Path) -> None:
    assert f"Did you mean `{hint}`?" in told(written(tmp_path, **{section: value}))


def test_a_key_that_its_section_has_not_is_no_hint(tmp_path: Path) -> None:
    """kd has no students."""
    assert "Did you mean" not in told(written(tmp_path, method="{name: kd, n: 3}"))
    assert "Did you mean" not in told(written(tmp_path, method="kd", n="3"))


def test_a_wrong_kind_hides_no_other_mistake(tmp_path: Path) -> None:
    wrong = {
        "data": "{name: cifar, image_sz: 32}",
        "method": "{studnets: 3}",
        "train": "{epochs: 0}",
        "search": "{grid: {train.lrr: [1]}}",
        "report": "{rows: train.epoch}",
    }
    message = told(written(tmp_path, **wrong))
    found = re.findall(r"^\S+job.yaml:\d+:\d+  (\S+)", message, re.M)
    assert found == [
        "data.name",
        "data.image_sz",
        "method.name",
        "method.studnets",
        "train.epochs",
        "train.lrr",
        "report.rows",
    ]
    assert "Did you mean `image_size`?" in message
    assert "Did you mean `students`?" in message
