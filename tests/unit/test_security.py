"""What an attacker may put before the program: job files, records, caches and images from elsewhere; and secrets."""

import ast
import json
import os
import pickle
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pydantic import BaseModel

import ffsd_ray
from ffsd_ray.classify import main as classify
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import KINDS, TrialSpec
from ffsd_ray.credentials import hidden, secret_in
from ffsd_ray.data import load as load_data
from ffsd_ray.errors import DamagedRecords, DataError, JobError, RecordsError
from ffsd_ray.evaluate import main as evaluate
from ffsd_ray.export import main as export
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.maps import main as maps
from ffsd_ray.stamp import blank, stamped

from helpers.comparison import latest_state
from helpers.images import data_settings, png
from helpers.plans import LAUGHS
from helpers.small_run import again, local_job, owner_of, train, trial, write_stamped
from helpers.synthetic_records import result, write_run

PACKAGE = Path(ffsd_ray.__file__).parent
CLUSTER = PACKAGE.parent / "cluster"
GOOD = """\
name: good
data: {name: digits, image_size: 8}
backbone: {name: resnet20}
method: {name: ffsd, students: 2}
train: {epochs: 4}
"""


# ---- nothing that a job file holds is run


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(JobError) as refused:
        load_job(file, overrides)
    assert refused.value.status == 2
    return str(refused.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("train: {lr: !!python/object/apply:os.system ['touch FLAG']}", "job.yaml:6:13  train.lr"),
        ("train: !!python/object/new:os.system ['touch FLAG']", "job.yaml:6:8  train"),
        ("train: {lr: !!python/name:os.system }", "job.yaml:6:13  train.lr"),
        ("!!python/object/apply:os.system ['touch FLAG']: 1", "job.yaml:6:1"),
        ("train: {lr: !run 'touch FLAG'}", "job.yaml:6:13  train.lr"),
        ("train: {lr: \"__import__('os').system('touch FLAG')\"}", "job.yaml:6:13  train.lr = "),
        ("train: {lr: '$(touch FLAG)'}", "job.yaml:6:13  train.lr = "),
        # what Ray Tune would evaluate, were it ever in a trial's configuration
        ("train: {lr: {eval: \"__import__('os').system('touch FLAG')\"}}", "job.yaml:6:9  train.lr = "),
        ("search: {grid: {train.lr: [{eval: 'spec.x'}]}}", "job.yaml:6:17  train.lr = "),
        ("search: {samples: 1, random: {train.lr: {choice: [{eval: '1'}]}}}", "job.yaml:6:31  train.lr = "),
        ("search: {variants: {a: {train: {lr: {eval: '1'}}}}}", "job.yaml:6:33  train.lr = "),
        ("search: {only: [{when: {'__class__': 1}, then: {train.lr: 1}}]}", "job.yaml:6:25  search.only[0].when"),
        ("search: {only: [{when: {method.students: 'students > 1'}, then: {train.lr: 1}}]}", "job.yaml:6:17"),
        ("search: {grid: {method.__init__.__globals__: [1]}}", "job.yaml:6:17  method.__init__"),
        ("report: {rows: train.__class__}", 'job.yaml:6:16  report.rows = "train.__class__"'),
    ],
)
def test_what_looks_like_code_is_refused(written: str, at: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    text = GOOD.replace("train: {epochs: 4}\n", "train: {epochs: 4}\n" if written[0] in "sr!" else "# \n")
    message = refusal(tmp_path, text + written.replace("FLAG", str(flag)) + "\n")
    assert message.startswith(at), message
    assert not flag.exists()


@pytest.mark.parametrize("value", ["__import__('os').system('touch FLAG')", "!!python/name:os.system", "1+1", "$(id)"])
def test_what_looks_like_code_on_the_command_line_is_refused(value: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    option = f"train.lr={value.replace('FLAG', str(flag))}"
    assert f"--set {option}".replace(f"{tmp_path}/", "") in refusal(tmp_path, GOOD, option)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("digits", "subprocess", '2:14  data.name = "subprocess"'),
        ("resnet20", "torchvision:os", '3:18  backbone.name = "torchvision:os"'),
        ("resnet20", "torchvision:get_model", "3:18  backbone.name"),
        ("resnet20", "os.system", "3:18  backbone.name"),
        ("ffsd", "__class__", "4:16  method.name"),
        ("name: good", "name: ../../elsewhere", '1:7  name = "../../elsewhere"'),
        ("name: good", "name: /tmp/elsewhere", "1:7  name"),
        ("name: good", "name: ..", "1:7  name"),
        ("name: good", 'name: "a\\n"', "1:7  name"),
        ("name: good", 'name: "a\\0b"', "1:7  name"),
    ],
)
def test_names_lead_nowhere_else(old: str, new: str, at: str, tmp_path: Path) -> None:
    before = set(sys.modules)
    assert refusal(tmp_path, GOOD.replace(old, new, 1)).startswith(f"job.yaml:{at}")
    assert not {name for name in set(sys.modules) - before if not name.startswith(("torch", "ffsd_ray", "PIL"))}


LONG = f"a: &a '{'x' * 100_000}'\nb: [{', '.join(['*a'] * 40_000)}]\n"
CHAIN = f"a: &a {'[' * 80}{']' * 80}\nb: {'[' * 80}*a{']' * 80}\n"


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        (GOOD + LAUGHS, "job.yaml:6:32  e[3]", "more than 50,000 values"),
        (GOOD + LONG, "job.yaml:6:4  b[", "1,000,000 characters"),
        (GOOD + CHAIN, "job.yaml:6:", "nested more than 100 deep, aliases followed"),
        (GOOD + "seed: &a [*a]\n", "job.yaml:6:7  seed[0][0]", "nested more than 100 deep"),
        (GOOD + f"seed: {'[' * 250}{']' * 250}\n", "job.yaml:6:", "nested more than 100 deep"),
        (GOOD + f"seed: {'[' * 100_000}", "job.yaml:6:", "nested more than 100 deep"),
        (GOOD + f"seed: 0x{'f' * 10_000}\n", "job.yaml:6:7  seed = ", "Cannot be read as !!int"),
        (GOOD + f"seed: {'9' * 4000}\n", "job.yaml:6:7  seed = ", "Cannot be read as !!int"),
        (GOOD.replace("students: 2", "students: 1000000000"), "job.yaml:4:", "100 or less"),
        (GOOD.replace("epochs: 4", "lr: 1e300"), "job.yaml:5:13  train.lr", "1e+12 or less"),
        (GOOD + "scale: {threads: 1000000000}\n", "job.yaml:6:18  scale.threads", "1024 or less"),
        (GOOD + "scale: {workers: 1000000}\n", "job.yaml:6:18  scale.workers", "from 1 to 1024"),
        (
            GOOD.replace("size: 8", "size: 8, validation: 0.1")
            + "search: {searcher: {name: optuna}, samples: 9000000000, random: {train.lr: {uniform: [0.1, 1]}}}\n",
            "job.yaml:6:1  search",
            "9,000,000,000 trials; should be 10,000 or fewer",
        ),
    ],
)
def test_what_would_fill_memory_or_never_end_is_refused(text: str, at: str, said: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(at), message[:500]
    assert said in message


def test_a_trials_spec_holds_nothing_of_free_form() -> None:
    """Ray Tune evaluates {"eval": CODE} wherever it finds it in a configuration, and a configuration is a spec."""

    def free(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            if "Any" in str(field.annotation) or "dict" in str(field.annotation):
                yield f"{model.__name__}.{name}"

    models: list[type[BaseModel]] = [TrialSpec, *KINDS["data"].values(), *KINDS["method"].values()]
    for name in ("backbone", "train", "scale"):
        section = TrialSpec.model_fields[name].annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        models.append(section)
    assert [name for model in models for name in free(model)] == []


#: They import modules by name: the package's own, and plugins, which a command line or the environment names.
IMPORTERS = {"registry.py", "__main__.py", "plugins.py", "completion.py"}


def test_the_package_neither_evaluates_nor_unpickles() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "system", "popen", "restore", "unsafe_load", "full_load"}
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] != ["cpu_count"]:
                names = [node.module or ""]
            if {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"} & {
                name.split(".")[-1] for name in names
            }:
                found.append(f"{file.name}:{node.lineno}: import")  # type: ignore[attr-defined]
            if not isinstance(node, ast.Call):
                continue
            whole = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            bad = whole in forbidden or (whole.rpartition(".")[2] in forbidden - {"eval", "compile"})
            bad |= whole == "torch.load" and given.get("weights_only") != "True"
            bad |= whole in ("yaml.load", "yaml.load_all", "np.load", "numpy.load", "torch.jit.load")
            bad |= given.get("shell") == "True" or "allow_pickle" in given
            bad |= whole.endswith("import_module") and file.name not in IMPORTERS
            if bad:
                found.append(f"{file.name}:{node.lineno}: {whole}")
    assert found == []


# ---- nothing is unpickled from storage

JOB = local_job(
    "method: {name: kd}",
    "train: {epochs: 2, batch_size: 32, lr: 0.05, steps_per_epoch: 1}",
    "scale: {threads: 1}",
)


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.flag),)


def raw(flag: Path) -> bytes:
    return pickle.dumps(Bomb(flag))


def zipped(flag: Path) -> bytes:
    """As torch writes it."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"method": Bomb(flag)}, Path(folder) / "x")
        return (Path(folder) / "x").read_bytes()


def test_the_bombs_go_off(tmp_path: Path) -> None:
    pickle.loads(raw(tmp_path / "a"))
    (tmp_path / "file").write_bytes(zipped(tmp_path / "b"))
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "a").is_dir()
    assert (tmp_path / "b").is_dir()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job whose student was taught by a trial of the same run."""
    return train(tmp_path_factory.mktemp("trained"), JOB)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize("make", [raw, zipped])
def test_resuming_unpickles_no_checkpoint(
    make: Callable[[Path], bytes], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, student = folder / "flag", trial(folder, "kd")
    (student / "result.json").unlink()
    checkpoint = student / "checkpoints" / "epoch-000002.pt"
    write_stamped(checkpoint, make(flag))
    assert again(folder, "--resume") == 1
    assert not flag.exists()
    error = json.loads((student / "error.json").read_text())
    assert error["kind"] == "DamagedRecords"
    assert error["message"].startswith(f"{checkpoint}: expected a checkpoint of tensors and plain values")
    output = capsys.readouterr()
    assert str(checkpoint) in output.out
    assert "Traceback" not in output.out + output.err
    with pytest.raises(DamagedRecords):  # as a population takes it over
        TrialRecords(Store(str(student))).checkpoints.after(2)
    assert maps([str(folder / "runs" / "small"), "--out", str(folder / "maps.png")]) == 1
    assert str(checkpoint) in capsys.readouterr().err
    assert not flag.exists()


@pytest.mark.parametrize("make", [raw, zipped])
def test_a_teacher_is_not_unpickled(
    make: Callable[[Path], bytes], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, student, teacher = folder / "flag", trial(folder, "kd"), trial(folder, "baseline")
    weights = teacher / "model_last.safetensors"
    write_stamped(weights, make(flag))
    shutil.rmtree(student)
    assert again(folder, "--resume") == 1
    assert f"{weights}: expected safetensors" in capsys.readouterr().out
    assert again(folder, "--set", f"method.teacher_weights={weights}", "--set", "name=file") == 1
    output = capsys.readouterr()
    assert f"method.teacher_weights: {weights}: expected a safetensors file" in output.out
    assert "Traceback" not in output.out + output.err
    assert not flag.exists()


@pytest.mark.parametrize("name", ["result.json", "history.parquet", "model_best.safetensors", "../../job.json"])
def test_reports_and_commands_unpickle_nothing(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag, records = folder / "flag", str(folder / "runs" / "small")
    file = (trial(folder, "kd") / name).resolve()
    write_stamped(file, raw(flag))
    if name == "model_best.safetensors":
        for command, arguments in (
            (evaluate, []),
            (classify, [str(folder / "job.yaml")]),
            (export, ["--onnx", str(folder / "x.onnx")]),
        ):
            assert command([str(file), *arguments]) == 2
            assert f"{file}: expected a safetensors file" in capsys.readouterr().err
    else:
        plot = ["--plot", "epochs", "--out", str(folder / "x.png")] if name == "history.parquet" else []
        assert report([records, *plot]) == (1 if name == "result.json" else 2)
        assert f"{file}: expected" in capsys.readouterr().err
    assert not flag.exists()


def test_a_reused_trial_is_not_unpickled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag, file = folder / "flag", trial(folder, "kd") / "result.json"
    write_stamped(file, raw(flag))
    assert again(folder, "--set", "name=other") == 0
    assert f"Not reused: {file}: expected JSON, as a run writes it" in capsys.readouterr().out
    assert not flag.exists()


def test_images_are_not_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchvision reads CIFAR by pickle: only files whose checksum is that of the real ones."""
    flag, base = tmp_path / "flag", tmp_path / "data" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for name in (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch", "batches.meta"):
        (base / name).write_bytes(raw(flag))
    with pytest.raises(DataError, match=r"data\.root: .*no cifar10 there"):
        load_data(data_settings("cifar10", root=str(tmp_path / "data")))
    assert not flag.exists()


def test_the_cache_of_images_is_not_unpickled(tmp_path: Path) -> None:
    flag, cache = tmp_path / "flag", tmp_path / "cache"
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "root" / part / name).mkdir(parents=True)
            (tmp_path / "root" / part / name / "1.png").write_bytes(
                png(torch.full((3, 8, 8), ord(name), dtype=torch.uint8))
            )
    settings = data_settings("image_folder", root=str(tmp_path / "root"), image_size=8, cache=str(cache))
    load_data(settings)
    [entry] = cache.glob("*.safetensors")
    whole = entry.read_bytes()
    for make in (raw, zipped):
        entry.write_bytes(make(flag))
        assert len(load_data(settings).train) == 2
        assert entry.read_bytes() == whole, "made anew"
    assert not flag.exists()


def test_a_pickled_type_in_parquet_is_not_unpickled(tmp_path: Path) -> None:
    """What pyarrow did on reading until version 14 (CVE-2023-47248)."""
    flag = tmp_path / "flag"
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": raw(flag)}
    schema = pa.schema([pa.field("epoch", pa.int64(), metadata=metadata)])
    file = tmp_path / "history.parquet"
    with pq.ParquetWriter(file, schema) as writer:
        writer.write_table(pa.table([pa.array([1])], schema=schema))
        writer.add_key_value_metadata({"stamp": blank(owner_of(file))})
    file.write_bytes(stamped(file.read_bytes()))
    assert TrialRecords(Store(str(tmp_path))).history() == [{"epoch": 1}]
    assert not flag.exists()


# ---- a kill at any instant leaves the previous checkpoint


def in_a_child(work: Callable[[], None]) -> int:
    """The status of a process that does this."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def write(records: TrialRecords, epoch: int) -> None:
    none_yet: dict[str, Any] = {"rows": [], "best": {}, "best_weights": {}, "lineage": []}
    weights = torch.full((50_000,), float(epoch))
    state = {"epoch": epoch, "method": {"weights": weights}, "optimisers": {}, "progress": none_yet}
    records.checkpoints.write(epoch, state, keep_earlier=False)


def assert_whole(records: TrialRecords, *epochs: int) -> None:
    state = latest_state(records)
    assert state["epoch"] in epochs
    assert torch.equal(state["method"]["weights"], torch.full((50_000,), float(state["epoch"])))


def test_killed_at_every_call_of_the_system_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # a child of a process with threads has none
    kills, found = 0, set()
    for instant in range(1000):
        records = TrialRecords(Store(str(tmp_path / str(instant))))
        write(records, 1)

        def work(records: TrialRecords = records, instant: int = instant) -> None:
            left = instant

            def hook(event: str, arguments: object) -> None:
                nonlocal left
                if event.startswith(("open", "os.", "shutil.")):
                    left -= 1
                    if left == -1:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            write(records, 2)

        status = in_a_child(work)
        assert_whole(records, 1, 2)
        found.add(latest_state(records)["epoch"])
        if not status:
            break
        kills += 1
    assert kills >= 3
    assert found == {1, 2}
    assert records.store.child("checkpoints").names() == ["epoch-000002.pt"]


def test_killed_at_any_moment_while_checkpoints_are_written(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    records = TrialRecords(Store(str(tmp_path)))
    write(records, 1)
    draw = random.Random(0)
    for _ in range(40):
        first = latest_state(records)["epoch"]

        def work(first: int = first) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout catches it, so before the timer is set
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.001, 0.03))
            for epoch in range(first + 1, first + 1000):
                write(records, epoch)

        assert in_a_child(work) == signal.SIGALRM
        draw.random()
        assert_whole(records, *range(first, first + 1000))


# ---- secrets

SECRET = "hush0123456789"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://KEY:{SECRET}@bucket/runs",
        f"s3://KEY:with/{SECRET}@bucket/runs",
        f"s3://{SECRET}@bucket/runs",
        f"s3://bucket/runs?secret_key={SECRET}",
        f"abfs://:{SECRET}@account/runs",
        f"https://me:{SECRET}@host/x",
        f"postgresql+psycopg2://me:{SECRET}@host/db",
        f"http://host/?token={SECRET}",
    ],
)
def test_a_uri_with_credentials_is_refused_and_not_shown(uri: str, tmp_path: Path) -> None:
    for text, at in (
        (GOOD + f"records: {{storage: '{uri}'}}\n", "job.yaml:6:20  records.storage"),
        (GOOD.replace("digits, image_size: 8", f"image_folder, root: '{uri}'"), "job.yaml:2:34  data.root"),
        (GOOD + f"watch: {{mlflow: {{experiment: e, tracking_uri: '{uri}'}}}}\n", "job.yaml:6:47  watch.mlflow"),
        (GOOD + f"storage: '{uri}'\n", "job.yaml:6:1  storage"),
        (GOOD + f"# storage: {uri}\n", "job.yaml:6:"),
    ):
        message = refusal(tmp_path, text)
        assert message.startswith(at)
        assert "Holds a user, password or key" in message
        assert SECRET not in message
    for overrides in ([f"records.storage={uri}"], [f"records.storage={uri}", "records.storage=runs"]):
        message = refusal(tmp_path, GOOD, *overrides)
        assert message.startswith("--set records.storage=")
        assert SECRET not in message
    if uri.startswith(("s3", "abfs")):
        with pytest.raises(RecordsError) as refused:
            Store(uri)
        assert SECRET not in str(refused.value)


def test_what_is_no_secret_stays() -> None:
    for text in ("abfs://container@account/x", "http://host:80/a@b", "sqlite:///a.db", "s3://b/key=3/x", "a@b: c"):
        assert secret_in(text) is None
        assert hidden(text) == text
    assert (
        hidden(f"a s3://k:{SECRET}@b, http://h/?a=1&token={SECRET}&b=2") == "a s3://***@b, http://h/?a=1&token=***&b=2"
    )


# ---- pages and tables

NASTY = "<script>alert(1)</script> [x](javascript:alert(1)) \\input{/etc/passwd} $\\frac{ ` | &amp;"


@pytest.fixture
def nasty(tmp_path: Path) -> RunRecords:
    """Names of variants and errors as an attacker would have them."""
    search = {"variants": {NASTY: {"train": {"lr": 0.2}}, "plain": {"train": {"lr": 0.1}}}}
    job = GOOD + yaml.safe_dump({"seed": [0, 1], "search": search})

    def outcome(spec: TrialSpec) -> Any:
        return f"lost: {NASTY}" if spec.seed else result(spec, 90.0 + spec.train.lr, 80.0)

    return write_run(tmp_path, job, outcome)


def test_a_page_shows_names_and_errors_as_text(nasty: RunRecords, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "page.html"
    assert report([nasty.store.location, "--html", str(page)]) == 0
    text = page.read_text()
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") > 3
    assert "javascript:alert" not in "".join(part.split("<")[0] for part in text.split("href=")[1:])
    assert "default-src 'none'" in text


def test_tables_show_names_and_errors_as_text(nasty: RunRecords, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([nasty.store.location, "--format", "markdown"]) == 0
    markdown = capsys.readouterr().out
    assert "\\<script>alert" in markdown
    assert "<script" not in markdown.replace("\\<", "")
    assert "](javascript" not in markdown
    assert report([nasty.store.location, "--format", "latex"]) == 0
    latex = capsys.readouterr().out
    assert "\\input" not in latex
    assert "\\frac" not in latex
    assert "\\textbackslash{}input\\{/etc/passwd\\}" in latex
    assert report([nasty.store.location]) == 0
    capsys.readouterr()


# ---- clusters


def test_clusters_want_a_token() -> None:
    for name in ("kuberay", "rayjob"):
        spec = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())["spec"]
        cluster = spec.get("rayClusterSpec", spec)
        assert cluster["authOptions"] == {"mode": "token"}
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        assert cluster["headGroupSpec"].get("serviceType", "ClusterIP") == "ClusterIP", "none is public"
        for group in groups:
            pod = group["template"]["spec"]
            assert not {"hostNetwork", "hostPID"} & pod.keys()
            for container in pod["containers"]:
                assert not any("hostPort" in port for port in container.get("ports", []))
                assert "env" not in container
    for name in ("aws", "gcp"):
        config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
        assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
        assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])
        assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
        assert "security_group" not in config["provider"], "Ray's own: everything from within, ssh from outside"
    readme = (CLUSTER / "README.md").read_text()
    assert all("umask 077" in line for line in readme.splitlines() if "get-auth-token --generate" in line)
    for commands in readme.split("```")[1::2]:
        if "ray start" in commands or "ray up" in commands:
            assert "export RAY_AUTH_MODE=token" in re.split("ray start|ray up", commands)[0]


def test_no_file_holds_a_secret() -> None:
    """Neither those of the cluster nor the image: it copies no folder but the package and the jobs."""
    copied = [line for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line.startswith(("COPY", "ADD"))]
    assert not [line for line in copied if " . " in line or line.startswith("ADD")]
    for file in [*CLUSTER.iterdir(), *(PACKAGE.parent / "jobs").glob("*.yaml")]:
        if file.is_file() and file.suffix != ".png":
            text = file.read_text()
            assert secret_in(text) is None, file
            assert not {"AKIA", "BEGIN PRIVATE KEY", "aws_secret"} & set(text.split()), file


SECRETS = {
    name: f"hush-{index}-{'0123456789' * 4}"
    for index, name in enumerate(
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN"]
    )
} | {"MLFLOW_TRACKING_PASSWORD": "hush-5", "HF_TOKEN": "hush-6", "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/hush-7"}


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_on_ray_writes_no_secret_and_lets_nobody_in(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray makes sockets below it
    (folder / "home").mkdir()
    job = tmp_path / "job.yaml"
    watch = "watch: {wandb: {project: p}, mlflow: {experiment: e}}\n"
    text = JOB.replace("context: local\n", "").replace("kd", "baseline").replace("epochs: 2", "epochs: 1")
    job.write_text(text + watch)
    nobody = "127.0.0.1:9"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "WANDB_"))}
    environment |= SECRETS | {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RAY_TMPDIR": str(folder),
        "MLFLOW_TRACKING_URI": f"http://me:hush-8@{nobody}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "WANDB_BASE_URL": f"http://{nobody}",
        "WANDB_INIT_TIMEOUT": "5",
    }
    command = [sys.executable, "-m", "ffsd_ray.run", str(job), "--storage", str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Training is none the worse") == 2, "both were asked"
    token = folder / "home" / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secrets = ["hush-", token.read_text()]
    token.unlink()
    files = [file for root in (folder, tmp_path) for file in root.rglob("*") if file.is_file()]
    assert len(files) > 40
    texts = {"stdout": done.stdout, "stderr": done.stderr} | {
        str(file): file.read_text(errors="replace") for file in files
    }
    assert [name for name, text in texts.items() if any(secret in text for secret in secrets)] == []
    shutil.rmtree(folder)
