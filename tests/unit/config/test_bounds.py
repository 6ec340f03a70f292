"""Every setting of a job file is bounded, and what a machine cannot hold by far is told before it is tried."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ffsd_ray import memory
from ffsd_ray.backbones import backbone
from ffsd_ray.config.inspection import memory as needs
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import decode
from ffsd_ray.data.damage import DamagePolicy
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.errors import DataError, JobError
from ffsd_ray.run import main as run

from helpers import paths

JOBS = paths.JOB_FILES
GOOD = """\
name: good
context: local
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: ffsd, students: 2}
train: {epochs: 4}
"""

#: Limits of JSON schema by type: one of each group must be there.
LIMITS = {
    "integer": [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}],
    "number": [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}],
    "string": [{"maxLength", "enum", "const"}],
    "array": [{"maxItems"}],
}


def unbounded(node: dict[str, Any], path: str, definitions: dict[str, Any]) -> Iterator[str]:
    """Paths below a schema's node of what has no limit."""
    if "$ref" in node:
        yield from unbounded(definitions[node["$ref"].rpartition("/")[2]], path, definitions)
    for group in ("anyOf", "oneOf", "allOf"):
        for below in node.get(group, []):
            yield from unbounded(below, path, definitions)
    if any(not limits & node.keys() for limits in LIMITS.get(node.get("type", ""), [])):
        yield path
    if isinstance(node.get("items"), dict):
        yield from unbounded(node["items"], f"{path}[]", definitions)
    for index, below in enumerate(node.get("prefixItems", [])):
        yield from unbounded(below, f"{path}[{index}]", definitions)
    for key, below in node.get("properties", {}).items():
        yield from unbounded(below, f"{path}.{key}".removeprefix("."), definitions)
    if isinstance(below := node.get("additionalProperties"), dict):
        if "maxProperties" not in node:
            yield f"{path}{{}}"
        yield from unbounded(below, f"{path}.*", definitions)


@pytest.mark.parametrize("model", [JobSpec, TrialSpec])
def test_every_number_list_and_text_has_bounds(model: type[JobSpec | TrialSpec]) -> None:
    schema = model.model_json_schema()
    # values of any key, which are held to that key's bounds in the trials that they make
    free = {"search.variants.*{}", "search.variants.*"} if model is JobSpec else set()
    assert set(unbounded(schema, "", schema["$defs"])) <= free


@pytest.mark.parametrize(
    ("old", "new", "at", "said"),
    [
        ("image_size: 8", "image_size: 100000", "3:34  data.image_size", "512 or less"),
        ("epochs: 4", "lr: 1.0e+18", "6:13  train.lr", "1e+12 or less"),
        ("epochs: 4", "epochs: 9000000000000000000", "6:17  train.epochs", "100000 or less"),
        ("epochs: 4", "batch_size: 9000000000000000000", "6:21  train.batch_size", "1000000 or less"),
        ("epochs: 4", "eval_batch_size: 9000000000000000000", "6:26  train.eval_batch_size", "1000000 or less"),
        ("epochs: 4", "weight_decay: 1.0e+9", "6:23  train.weight_decay", "100 or less"),
        ("epochs: 4", "execution: graph", "train.execution", "needs a GPU"),
        ("epochs: 4", "precision: tf32", "train.precision", "needs GPUs"),
        ("name: good", f"name: {'n' * 10_000}", "1:7  name", "200 characters or fewer"),
        ("name: digits, image_size: 8", f"name: cifar10, root: {'r' * 10_000}", "3:29  data.root", "4096 characters"),
        ("name: digits, image_size: 8", 'name: cifar10, root: "a\\0b"', "3:29  data.root", "Not allowed"),
        ("name: digits", "name: image_folder, root: x, loader_processes: 4000", "loader_processes", "256 or less"),
        ("name: digits", "name: image_folder, root: x, mean: [1, 2, 3]", "data.mean", "scaled to [0, 1]"),
        ("students: 2", "students: 2, lambda_fea: 1.0e+30", "method.lambda_fea", "1000000000 or less"),
        ("students: 2", "students: 2, warmup_epochs: 1000000000", "method.warmup_epochs", "100000 or less"),
        ("resnet20", "r" * 10_000, "4:18  backbone.name", "200 characters or fewer"),
        ("context: local", "scale: {gpus_per_worker: 1000000}", "scale.gpus_per_worker", "1024 or less"),
        ("context: local", "scale: {memory_per_worker_gib: 1.0e+30}", "memory_per_worker_gib", "100000 or less"),
        ("context: local", "failures: {max_retries: 1000000000000}", "failures.max_retries", "1000 or less"),
        ("context: local", f"watch: {{wandb: {{project: {'p' * 300}}}}}", "watch.wandb.project", "200 characters"),
    ],
)
def test_senseless_values(old: str, new: str, at: str, said: str, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(JobError) as refused:
        load_job(job)
    message = str(refused.value)
    assert at in message
    assert said in message
    assert len(message) < 1000


@pytest.fixture(scope="module")
def trials() -> list[TrialSpec]:
    """Of all job files."""
    return [trial for job in JOBS for trial in load_job(job).trials]


@pytest.mark.thorough
def test_no_job_file_asks_for_more_than_machines_have(trials: list[TrialSpec]) -> None:
    assert max(worker.total for trial in trials if (worker := needs.estimate_memory(trial)) is not None) < 24e9


def test_identities_are_as_they_were() -> None:
    """Of the trials that the first job files have, as one number: neither bounds nor later settings change any."""
    jobs = [job for job in JOBS if job.parent == paths.JOBS and job.stem != "quickstart"]
    names = sorted(trial.identity() for job in jobs for trial in load_job(job).trials)
    assert len(names) == 502
    assert hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16] == "69d0523219d564de"


def spec(**changes: Any) -> TrialSpec:
    content = {"data": {"name": "digits", "image_size": 8}, "backbone": {"name": "resnet20"}}
    return TrialSpec.model_validate(content | {"method": {"name": "baseline"}} | changes)


def test_the_estimate() -> None:
    small, large = needs.estimate_memory(spec()), needs.estimate_memory(spec(train={"batch_size": 256}))
    assert small is not None
    assert large is not None
    assert small.images == 1437 * 3 * 8 * 8
    assert small.weights == 4 * 4 * 272_474
    assert large.step == 2 * small.step
    net = backbone("resnet20")(10)
    images = torch.randn(128, 3, 8, 8)
    saved: dict[int, torch.Tensor] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        net(images)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert small.step == pytest.approx(measured, rel=0.1)
    assert needs.estimate_memory(spec(data={"name": "image_folder", "root": "x"})) is None


def test_what_this_machine_cannot_hold_is_refused_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(GOOD.replace("image_size: 8", "image_size: 512").replace("epochs: 4", "batch_size: 1000000"))
    monkeypatch.setattr(needs, "machine_memory", lambda: 24_000_000_000)
    for arguments in (["--dry-run"], ["--storage", str(tmp_path / "runs")]):
        assert run([str(job), *arguments]) == 2
        err = capsys.readouterr().err
        assert "needs about" in err
        assert "TB" in err.partition("(")[0]
        assert "this machine has 24 GB" in err
        assert "train.batch_size" in err
    assert not (tmp_path / "runs").exists()


def test_on_a_cluster_elsewhere_it_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(GOOD.replace("context: local\n", ""))
    monkeypatch.setattr(needs, "machine_memory", lambda: 1_000_000)
    assert run([str(job), "--dry-run"]) == 2
    capsys.readouterr()
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    assert run([str(job), "--dry-run"]) == 0
    assert "Note: ffsd n=2: needs about" in capsys.readouterr().out


def test_images_that_the_machine_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "machine_memory", lambda: 1_000_000)
    items = [Encoded(Span("x"), 0, "x")] * 1000
    monkeypatch.setattr(decode, "_first_undamaged", lambda items: None)
    with pytest.raises(DataError, match=r"1,000 images of 64×64 need 12\.3 MB; this machine has 1 MB.*data\.stream"):
        decode._decode_listing(Listing(items, [], items[:0], ("a", "b")), 64, False, DamagePolicy("fail", 0.0))


def test_the_memory_of_this_machine() -> None:
    assert 1e8 < memory.machine_memory() < 1e15
    assert [memory.as_bytes(number) for number in (5, 1e3, 1.5e6, 7.2e13, 3e18)] == [
        "5 B", "1 kB", "1.5 MB", "72 TB", "3e+03 PB"
    ]  # fmt: skip
