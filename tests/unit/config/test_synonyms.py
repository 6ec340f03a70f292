"""What other tools call a key leads to ours, and never to one that is refused."""

from pathlib import Path

import pytest

from ffsd_ray.config.keys import JOB_KEYS, SYNONYMS
from ffsd_ray.config.load import load_job
from ffsd_ray.errors import JobError


def told(tmp_path: Path, text: str) -> str:
    job = tmp_path / "job.yaml"
    job.write_text(text)
    with pytest.raises(JobError) as refused:
        load_job(job)
    return str(refused.value)


def test_they_lead_to_keys_that_there_are() -> None:
    assert set(SYNONYMS.values()) <= set(JOB_KEYS)
    assert not SYNONYMS.keys() & {key.rpartition(".")[2] for key in JOB_KEYS}


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("model: resnet32", "Did you mean `backbone`?"),
        ("gpus: 1", "Did you mean `scale.gpus_per_worker`?"),
        ("seeds: [1, 2]", "Did you mean `seed`?"),
        ("train: {amp: true}", "Did you mean `precision`?"),
        ("train: {lr_schedule: cosine}", "Did you mean `schedule`?"),
        ("train: {optimizer: adamw}", "Did you mean `optimiser`?"),
        ("train: {gpus: 1}", "Did you mean `scale.gpus_per_worker`?"),
        ("method: {name: ffsd, n: 3}", "Did you mean `students`?"),
        ("method: {name: dml, T: 3}", "Did you mean `temperature`?"),
    ],
)
def test_hints(line: str, hint: str, tmp_path: Path) -> None:
    key = line.split(":")[0]
    base = {"data": "digits", "backbone": "resnet8", "method": "ffsd"}
    text = "name: j\n" + "".join(f"{name}: {value}\n" for name, value in base.items() if name != key)
    assert hint in told(tmp_path, text + line + "\n")


def test_a_key_that_its_section_has_not_is_no_hint(tmp_path: Path) -> None:
    """kd has no students."""
    assert "Did you mean" not in told(tmp_path, "name: j\ndata: digits\nbackbone: resnet8\nmethod: {name: kd, n: 3}\n")
