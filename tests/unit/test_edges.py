"""Where other people's software begins: whatever it raises ends a command with one message, before training starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save

from ffsd_ray import classify, evaluate, export
from ffsd_ray.command import command
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import RecordsError
from ffsd_ray.job_progress import JobProgress
from ffsd_ray.progress_view import LiveView, PlainView
from ffsd_ray.progress_view.view import measured
from ffsd_ray.records.store import Store
from ffsd_ray.run import main
from ffsd_ray.storage import open_location

from helpers.small_run import local_job
from helpers.tiers import often

JOB = local_job(
    "method: {name: baseline}",
    "train: {epochs: 1, batch_size: 256, steps_per_epoch: 1}",
)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(JOB)
    return tmp_path / "small.yaml"


def run(module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command_line = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command_line, env=os.environ | environment, capture_output=True, check=False)
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    assert "Traceback" not in out + err
    return subprocess.CompletedProcess(command_line, done.returncode, out, err)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("share", ["1", "0.5"])
def test_a_gpu_that_is_not_there(share: str, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(job), "--storage", str(tmp_path / "runs"), "--set", f"scale.gpus_per_worker={share}"]
    assert main(arguments) == 2
    assert "scale.gpus_per_worker: with `context: local`" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([*arguments, "--dry-run"]) == 0, "what is planned here may run elsewhere"


@pytest.mark.thorough
@pytest.mark.parametrize("encoding", often([], ["ascii", "cp1252"], others="slow"))
def test_output_of_few_signs(encoding: str, job: Path, tmp_path: Path) -> None:
    for arguments in (["--storage", tmp_path / "runs"], ["--dry-run"]):
        assert run("ffsd_ray.run", job, *arguments, PYTHONIOENCODING=encoding).returncode == 0
    for form in ("terminal", "markdown"):
        shown = run("ffsd_ray.report", tmp_path / "runs" / "small", "--format", form, PYTHONIOENCODING=encoding)
        assert shown.returncode == 0
        assert "aseline" in shown.stdout
    wrong = run("ffsd_ray.run", job, "--set", "train.epochs=±", PYTHONIOENCODING=encoding)
    assert wrong.returncode == 2


def test_signs_have_words() -> None:
    """As a table has them; what has none becomes a question mark."""
    program = "from ffsd_ray.command import command\ncommand(lambda argv=None: print('1 ± 2 × 3 − 4 漢') or 0)()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 +- 2 x 3 - 4 ?\n"


@pytest.mark.thorough
def test_a_reader_that_goes_ends_a_command_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    schema = [sys.executable, "-m", "ffsd_ray.schema"]
    done = subprocess.run(schema, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("hf://datasets/nobody/nothing/train.parquet", "pip install huggingface_hub"),
        ("https://somewhere.example/train.parquet", "expected a path, or a URI such as s3://"),
        ("abfs://container/x.parquet", "abfs://"),
        ("nothing://x/y.parquet", "expected a path, or a URI such as s3://"),
    ],
)
def test_uris_that_cannot_be_opened(
    location: str,
    said: str,
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # timm brings it
    with pytest.raises(ValueError, match=r".*"):
        open_location(location)
    content = JOB.replace("{name: digits, image_size: 8}", f"{{name: parquet, train: '{location}', test: x.parquet}}")
    job.write_text(content)
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 2
    message = capsys.readouterr().err
    assert "data.train" in message
    assert said in message
    job.write_text(JOB)
    assert main([str(job), "--storage", location]) == 2
    assert location.partition("?")[0] in capsys.readouterr().err


@pytest.mark.parametrize("location", ["/proc/nowhere", "FILE/runs", "FILE", "x" * 300, "a\0b"])
def test_storage_that_cannot_be(location: str, job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(job), "--storage", location.replace("FILE", str(job))]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    assert "--storage" in said


def test_looking_at_storage_leaves_nothing(tmp_path: Path) -> None:
    Store(str(tmp_path / "a" / "b")).check_writable()
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecordsError, match="choose another: --storage"):
        Store("/proc/nowhere").check_writable()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "address", often(["127.0.0.1:port"], ["http://127.0.0.1:8265", "127.0.0.1:port", "ray://"], others="slow")
)
def test_addresses_of_no_cluster(address: str, job: Path, tmp_path: Path) -> None:
    """One message; it is Ray that takes its time."""
    done = run("ffsd_ray.run", job, "--set", "context=ray", "--storage", tmp_path / "runs", RAY_ADDRESS=address)
    assert done.returncode == 2
    assert f"RAY_ADDRESS={address}" in done.stderr
    assert ("ray job submit" in done.stderr) is address.startswith("http")


def test_weights_files_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = '{"backbone": "resnet20", "classes": [], "mean": [0, 0, 0], "std": [1, 1, 1], "image_size": 8, "spec": {}, '
    card += '"precision": "fp32", "member": "student", "epoch": 1, "split": "test", "top1": 1.0}'
    contents = {
        "empty": b"",
        "text": b"hello",
        "huge header": (2**40).to_bytes(8, "little") + b"{}",
        "no card": save({"x": torch.zeros(1)}),
        "a card of another kind": save({"x": torch.zeros(1)}, metadata={"card": "[1]"}),
        "no classes": save({"x": torch.zeros(1)}, metadata={"card": card}),
        "other weights": save(
            {"x": torch.zeros(1, dtype=torch.bfloat16)}, metadata={"card": card.replace("[]", '["a"]')}
        ),
    }
    picture = str(tmp_path / "x.png")
    for name, content in contents.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(RecordsError, match=name):
            load_model(file)
        for arguments, program in (([], evaluate.main), ([picture], classify.main), (["--onnx"], export.main)):
            assert program([str(file), *arguments]) == 2
            assert name in capsys.readouterr().err
    with pytest.raises(RecordsError):
        load_model("a\0b")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def writes(argv: object = None) -> int:
        (tmp_path / "no" / "folder").write_text("x")
        return 0

    assert writes() == 2
    assert capsys.readouterr().err == f"{tmp_path}/no/folder: no such file or directory\n"


def test_an_epoch_that_was_not_evaluated_shows_its_speed() -> None:
    row = {"epoch": 1, "images_per_second": 99.6}
    assert measured(row, "leader") == "100 images/s"
    assert measured(row | {"test/leader/top1": 50.0}, "leader") == "leader 50.00 %  100 images/s"


@pytest.mark.parametrize("kind", [PlainView, LiveView])
def test_a_searchers_trials_are_counted(kind: type[PlainView | LiveView]) -> None:
    """One template stands for all that are still to be chosen: it is not their number."""
    console = Console(file=open(os.devnull, "w"), width=100)  # noqa: SIM115
    progress = JobProgress({"template": 1.0}, done=3, total=50)
    with console.capture() as shown, kind(console, {"template": "x"}, {"template": "student"}, progress) as view:
        view.started("template", 1, 0)
        view.ended("template", "completed", "")
        if isinstance(view, LiveView):
            view._bars.refresh()
            assert [task.completed for task in view._bars.tasks] == [4]
    if kind is PlainView:
        assert [line.split()[1] for line in shown.get().splitlines()] == ["[3/50]", "[4/50]"]
