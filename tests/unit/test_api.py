"""Jobs and runs from Python, as in a notebook."""

import doctest
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ffsd_ray
from ffsd_ray import api, deployed, group
from ffsd_ray.errors import JobError, RecordsError

from helpers.paths import TESTS

NOTEBOOK = TESTS / "helpers" / "notebook.py"


def test_the_whole_interface_in_a_notebooks_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(NOTEBOOK))
    job, run = names["job"], names["run"]
    shown = run._repr_html_()
    assert "4 of 4 trials completed" in shown
    assert "<td>ffsd n=2</td>" in shown
    assert "seeds 0, 1" in shown
    assert names["figure"]._repr_png_().startswith(b"\x89PNG"), "what a notebook shows"
    with pytest.raises(JobError, match=r"Did you mean `train\.lr`"):
        run.plot("train.lr2", epoch="last")
    with pytest.raises(RecordsError, match="a run is here already"):
        ffsd_ray.fit(job, {"train.epochs": 2})


@pytest.mark.thorough
def test_in_a_real_kernel(tmp_path: Path) -> None:
    """Progress is one output that is rewritten, and nothing else comes of a training but a line on its records."""
    client = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    _, *cells = re.split(r"^# %%.*\n", NOTEBOOK.read_text(), flags=re.M)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *notes, progress, page = notebook.cells[0].outputs
    assert {output.output_type for output in notes} == {"display_data"}
    assert len(notes) <= 3  # where the records are, and what was chosen: GPUs and CPUs
    assert "✓ ffsd n=2, seed 1: completed  leader" in progress.data["text/html"]
    assert re.search(r"trials .*4/4", progress.data["text/html"])
    assert "4 of 4 trials completed" in page.data["text/html"]
    assert "image/png" in notebook.cells[-1].outputs[-1].data


class _Quiet(doctest.OutputChecker):
    """Passes an example that shows no output, whatever it prints on its way, such as progress."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def test_the_examples_of_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(_Quiet())
    examples = [test for module in (api, deployed, group) for test in doctest.DocTestFinder().find(module)]
    for test in examples:
        runner.run(test)
    assert runner.failures == 0
    assert {test.name.rpartition(".")[2] for test in examples if test.examples} >= {"fit", "open_run", "load_model"}


def test_errors_are_the_commands() -> None:
    job: dict[str, Any] = {"name": "j", "data": "digits", "backbone": "resnet8", "method": "ffsd"}
    for wrong, overrides, said in [
        (job | {"metod": "ffsd"}, {}, r"job:\d+:1  metod = .*\n  Unknown key. Did you mean `method`"),
        (job, {"train.epoch": 3}, "--set train.epoch=3"),
        (job | {"backbone": "wrn-16-3"}, {}, "Did you mean `wrn-16-2`"),
    ]:
        with pytest.raises(JobError, match=said):
            ffsd_ray.fit(wrong, overrides)


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="no run here"):
        ffsd_ray.open_run(tmp_path)


def test_a_folder_of_its_name_does_not_hide_the_package(tmp_path: Path) -> None:
    """As where Python starts in the folder that a checkout is in."""
    (tmp_path / "ffsd_ray").mkdir()
    script = "import ffsd_ray; print(ffsd_ray.fit.__module__)"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "ffsd_ray.api\n"
