"""A method added as methods/README.md says: its example as one file more, which nothing else names."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import PROJECT

pytestmark = pytest.mark.thorough

JOB = """
name: added
context: local
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: mean}
train: {epochs: 1, batch_size: 16, steps_per_epoch: 2}
search: {grid: {method.weight: [0.5, 1]}, also: [{method: {name: baseline}}]}
"""
#: Of the tests over all methods, some of which the copy is to run for this one.
OVER_ALL = {
    "tests/unit/train/test_trainer.py::test_same_spec_same_bits",
    "tests/unit/train/test_trainer.py::test_every_method",
    "tests/unit/methods/test_methods.py::test_resumed_is_never_stopped",
    "tests/unit/methods/test_methods.py::test_members_are_who_they_are_called",
    "tests/unit/report/test_cost.py::test_every_method_has_its_networks_counted",
    "tests/unit/config/test_search.py::test_a_spec_survives_its_records",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its tests with the file added."""
    folder = tmp_path_factory.mktemp("added")
    for part in ("ffsd_ray", "tests"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (PROJECT / "ffsd_ray" / "methods" / "README.md").read_text(), re.M | re.S
    )
    [example] = [block for block in blocks if "(MethodSettings)" in block]
    (folder / "ffsd_ray" / "methods" / "mean.py").write_text(example)
    return folder


def python(folder: Path, *arguments: str) -> str:
    """What `python -m ...` prints there; it finds the copy before any other."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHONPATH"))}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_typed_and_in_the_projects_style(copy: Path) -> None:
    added = "ffsd_ray/methods/mean.py"
    python(copy, "mypy", added)
    python(copy, "ruff", "check", added)
    python(copy, "ruff", "format", "--check", added)


@pytest.mark.slow
def test_it_is_searched_costed_reported_and_exported(copy: Path) -> None:
    (copy / "job.yaml").write_text(JOB)
    assert "mean, weight=0.5, seed 0" in python(copy, "ffsd_ray.run", "job.yaml", "--dry-run")
    python(copy, "ffsd_ray.run", "job.yaml")
    reached, cost = (
        list(csv.DictReader(io.StringIO(python(copy, f"ffsd_ray.report.{table}", "runs/added", "--format", "csv"))))
        for table in ("methods", "cost")
    )
    line = next(line for line in reached if line["configuration"] == "mean, weight=0.5")
    expected = {"n": "1", "work": "2", "accuracy of": "Mean of common", "deploys": "student1"}
    assert line.items() >= expected.items()
    assert ("mean, weight=1.0", "resnet20", "2") in {
        (part["configuration"], part["component"], part["number"]) for part in cost
    }
    file = copy / "runs" / "added" / "trials" / line["trials"] / "model_last.safetensors"
    assert "student1" in python(copy, "ffsd_ray.evaluate", str(file))
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason='needs pip install "ffsd-ray[onnx]"')
    python(copy, "ffsd_ray.export", str(file), "--onnx")


@pytest.mark.slow
def test_the_tests_over_all_methods_include_it(copy: Path) -> None:
    files = dict.fromkeys(test.partition(":")[0] for test in sorted(OVER_ALL))
    said = python(copy, "pytest", "-v", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", "[mean]", *files)
    assert {f"{test}[mean]" for test in OVER_ALL} <= {
        line.partition(" ")[0] for line in said.splitlines() if " PASSED" in line
    }
