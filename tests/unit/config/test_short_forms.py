"""Sections given by their name alone."""

from pathlib import Path

import pytest

from ffsd_ray.config.load import load_job
from ffsd_ray.errors import JobError

LONG = """\
name: j
data: {name: digits}
backbone: {name: resnet8}
method: {name: ffsd}
train: {epochs: 3}
search: {SEARCH}
"""
SHORT = LONG.replace("{name: digits}", "digits").replace("{name: resnet8}", "resnet8").replace("{name: ffsd}", "ffsd")


def identities(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    job = tmp_path / "job.yaml"
    job.write_text(text)
    return [trial.identity() for trial in load_job(job, overrides).trials]


@pytest.mark.parametrize(
    ("short", "spelled"),
    [
        ("{}", "{}"),
        ("{grid: {method: [dml, ffsd, {name: kd}]}}", "{grid: {method: [{name: dml}, {name: ffsd}, {name: kd}]}}"),
        ("{grid: {backbone: [resnet8, resnet14]}}", "{grid: {backbone.name: [resnet8, resnet14]}}"),
        ("{sweep: {method: [dml, ffsd]}}", "{sweep: {method: [{name: dml}, {name: ffsd}]}}"),
        (
            "{random: {method: {choice: [dml, ffsd]}}, samples: 3}",
            "{random: {method: {choice: [{name: dml}, {name: ffsd}]}}, samples: 3}",
        ),
        ("{random: {method: [dml, ffsd]}, samples: 3}", "{random: {method: [{name: dml}, {name: ffsd}]}, samples: 3}"),
        ("{also: [{method: baseline}]}", "{also: [{method: {name: baseline}}]}"),
        ("{variants: {a: {method: baseline}, b: {}}}", "{variants: {a: {method: {name: baseline}}, b: {}}}"),
        (
            "{grid: {method: [dml, baseline]}, scheduler: asha}",
            "{grid: {method: [{name: dml}, {name: baseline}]}, scheduler: {name: asha}}",
        ),
    ],
)
def test_a_name_is_enough(short: str, spelled: str, tmp_path: Path) -> None:
    held_out = ["data.validation=0.2"] * ("asha" in short)  # by which it ranks
    expected = identities(tmp_path, LONG.replace("{SEARCH}", spelled), *held_out)
    assert identities(tmp_path, SHORT.replace("{SEARCH}", short), *held_out) == expected


def test_on_the_command_line_too(tmp_path: Path) -> None:
    text = LONG.replace("{SEARCH}", "{}")
    assert identities(tmp_path, text, "method=dml") == identities(tmp_path, text, "method={name: dml}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SHORT.replace("ffsd", "fsd"), 'job.yaml:4:9  method.name = "fsd"\n  Should be one of'),
        (SHORT.replace("resnet8", "resnet"), 'job.yaml:3:11  backbone.name = "resnet"'),
        (SHORT.replace("{SEARCH}", "{grid: {method: [dml, fsd]}}"), 'method.name = "fsd"'),
    ],
)
def test_a_wrong_name_is_named_at_its_place(text: str, said: str, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(text.replace("{SEARCH}", "{}"))
    with pytest.raises(JobError) as refused:
        load_job(job)
    assert said in str(refused.value)
