"""Measuring: what is timed is what is trained, and what falls short or fails is said."""

import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ffsd_ray import data
from ffsd_ray.bench.__main__ import main
from ffsd_ray.bench.compare import TimingBudget, _extrapolated_epoch, compare
from ffsd_ray.bench.launch import rows
from ffsd_ray.bench.measure.linearity import fit, linear_cost
from ffsd_ray.bench.measure.roofline import bytes_per_image
from ffsd_ray.bench.measure.timing import Timing, time_interleaved
from ffsd_ray.bench.measure.workers import compare_workers
from ffsd_ray.bench.readme import README, RECORDS, take, with_tables
from ffsd_ray.bench.record import Record
from ffsd_ray.bench.reference.plain_ffsd import Reference, reference_spec
from ffsd_ray.bench.run_suite import run_suite
from ffsd_ray.bench.suites import Point, Scope, cpu_points, gpu_points, gpu_summary
from ffsd_ray.bench.summary import slower_than
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.bench.variations import variations
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import normalise
from ffsd_ray.errors import RecordsError

from helpers.images import data_settings, images_of
from helpers.small_run import small_job
from helpers.specs import digits_spec

CPU = torch.device("cpu")
JOB = small_job(
    "method: {name: ffsd}",
    "train: {epochs: 2, batch_size: 8}",
    "search: {grid: {method.students: [2, 3]}}",
)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(JOB)
    return file


def smallest(**changes: Any) -> TrialSpec:
    settings = {"batch_size": 8, "steps_per_epoch": None} | changes
    return digits_spec({"name": "ffsd"}, data={"image_size": 8}, **settings)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_job_leaves_a_dated_record(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    vary = ["--vary", "train.precision=fp32,bf16"]
    assert main([str(job), *vary, "--repeats", "3", "--seconds", "0.3", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {"date", "revision", "device", "versions", "command"} <= record.keys()
    assert record["device"]["threads"] >= 1
    (point,) = record["points"].values()
    assert point["ceiling"].keys() == {"copy", "fp32", "bf16"}
    assert list(point["settings"]) == ["literal Algorithm 1", "precision fp32", "precision bf16"]
    literal, *others = point["settings"].values()
    for own in (literal, *others):
        assert own["step"]["n"] == 3
        assert own["step"]["quartiles"][0] <= own["step"]["median"] <= own["step"]["quartiles"][1]
        assert own["epoch"]["steps"] == 180  # 1437 images
        assert own["images_per_second"] == pytest.approx(8 / own["step"]["median"])
        assert own["flops_per_second"] == pytest.approx(own["flops"] / own["step"]["median"])
        if Path("/proc/self/status").exists():
            assert own["peak_bytes"] > 2**20
    for own in others:
        assert own["times_literal"] == pytest.approx(literal["step"]["median"] / own["step"]["median"])
        assert own["evaluation"]["batches"] == 1
    said = capsys.readouterr().out
    assert "precision bf16" in said
    assert str(out.name) in said


@pytest.mark.thorough
def test_beside_as_many_baselines() -> None:
    methods: list[dict[str, Any]] = [
        {"name": "baseline"},
        {"name": "ffsd"},
        {"name": "okddip"},
        {"name": "end2", "ensemble": 2},
    ]
    specs = {m["name"]: digits_spec(m, data={"image_size": 8}, batch_size=8) for m in methods}
    effort = TimingBudget(repeats=1, seconds=0, memory=False)
    found = compare(specs, lambda spec: synthetic_data(10, 8, train=8, test=1), CPU, effort)["settings"]
    assert {name: found[name]["networks"] for name in specs} == {"baseline": 1, "ffsd": 3, "okddip": 4, "end2": 1}
    for name in specs:
        own = found[name]
        assert own["times_members"] == pytest.approx(own["times_baseline"] / own["networks"])
    assert found["ffsd"]["parameters"] > 3 * found["baseline"]["parameters"]
    assert found["end2"]["parameters"] == found["baseline"]["parameters"]


@pytest.mark.slow
@pytest.mark.thorough
def test_every_configuration_once(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A teacher's too; seeds do not tell configurations apart."""
    out = tmp_path / "out.json"
    method = "search.grid={method: [{name: baseline}, {name: kd, teacher: resnet56}]}"
    options = ["--all", "--set", method, "--set", "seed=[0, 1]", "--repeats", "1", "--seconds", "0", "--out", str(out)]
    assert main([str(job), *options]) == 0
    (point,) = json.loads(out.read_text())["points"].values()
    assert set(point["settings"]) == {"resnet20, baseline", "resnet20, kd from resnet56", "resnet56, baseline"}
    taught, alone = (point["settings"][f"resnet20, {name}"] for name in ("kd from resnet56", "baseline"))
    assert taught["times_baseline"] == pytest.approx(taught["step"]["median"] / alone["step"]["median"])
    assert point["settings"]["resnet56, baseline"]["times_baseline"] == 1, "a backbone has its own baseline"
    assert "parameters trained" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([str(job), "--all", "--vary", "train.precision=fp32,bf16"])


def test_a_wrong_key_names_the_nearest(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(job), "--vary", "train.precison=fp32,bf16"]) == 2
    assert "Did you mean `precision`?" in capsys.readouterr().err
    assert main([str(job), "--vary", "train.precision"]) == 2
    assert "KEY=VALUE,VALUE" in capsys.readouterr().err
    assert main([str(job), "--trial", "0" * 16]) == 2
    assert "has no such trial" in capsys.readouterr().err


def test_what_is_advised_can_be_done(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job of several workers is refused with an option that mends it."""
    asked = [str(job), "--set", "scale.workers=2", "--set", "train.batch_size=8"]
    assert main(asked) == 2
    said = capsys.readouterr().err
    advised = said.rpartition("add ")[2].split()
    assert advised == ["--set", "scale.workers=1"]
    settings = variations(job, [*asked[2::2], advised[1]], [])
    assert {spec.scale.most_workers for spec in settings.values()} == {1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says that there is no GPU")
def test_a_gpu_that_is_not_there(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(job), "--set", "scale.gpus_per_worker=1"]) == 2
    assert "no GPU here" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_setting_that_fails_leaves_the_others() -> None:
    images, broken = synthetic_data(10, 8, train=8, test=1), _Broken(10, 8)
    found = compare(
        {"good": smallest(), "bad": smallest(seed=1)},
        lambda spec: broken if spec.seed else images,  # type: ignore[arg-type, return-value]
        CPU,
        TimingBudget(repeats=1, seconds=0, memory=False),
    )
    assert "step" in found["settings"]["good"]
    assert "no memory for it" in found["settings"]["bad"]["error"]
    assert "no memory for it" in found["error"]


class _Broken:
    """A data set that cannot be put on a device."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        self.num_classes, self.image_size = num_classes, image_size

    def to(self, device: torch.device) -> None:
        raise RuntimeError("no memory for it")


def written(out: Path, times_literal: float) -> Record:
    """The record of a CPU suite in which everything was measured, with made-up figures."""
    record = Record(out, "cpu suite, smoke", "as a test has it", CPU)

    def setting(precision: str, execution: str = "eager", *, literal: bool = False) -> dict[str, Any]:
        step = {"n": 9, "median": 1.5 if literal else 1.5 / times_literal, "quartiles": [0.1, 2.0]}
        return {
            "spec": {
                "train": {"precision": precision, "execution": execution, "batch_size": 128, "lr": 0.1},
                "seed": 0,
            },
            "literal": literal,
            "step": step,
            "images_per_second": 1.0,
            "flops_per_second": 1.0,
            "share_of_ceiling": 0.5,
            "peak_bytes": 1000,
            "floor": {"compute": 0.1, "memory": 0.1},
            **({} if literal else {"times_literal": times_literal, "memory_of_literal": 1.05}),
        }

    settings = {"literal": setting("fp32", literal=True), "fp32": setting("fp32"), "bf16": setting("bf16")}
    steps = {name: {"step": {"n": 9, "median": 1.0, "quartiles": [1.0, 1.0]}} for name in ("1", "2")}
    ceiling = {"copy": 1e9, "fp32": 1e9, "bf16": 1e9}
    record.add("resnet32 n=2", {"settings": settings, "ceiling": ceiling})
    compiled = {"bf16 compiled": setting("bf16", "compiled")}
    record.add("resnet32 n=2 compiled", {"settings": compiled, "ceiling": ceiling})
    record.add("workers", {"workers": steps})
    students = {str(n): steps["1"]["step"] for n in range(2, 9)}
    record.add("n = 2 to 8", {"students": students, "fit": fit({n: float(n) for n in range(2, 9)})})
    return record


@pytest.mark.parametrize(("required", "status"), [([], 0), (["--require", "2.4"], 0), (["--require", "2.6"], 1)])
def test_a_speed_that_is_required(
    required: list[str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All points are in the record already, so nothing is measured."""
    out = tmp_path / "suite.json"
    torch.set_num_threads(1)
    written(out, 2.5)
    asked = ["--suite", "cpu", "--device", "cpu", "--quick", "--smoke", "--out", str(out), *required]
    assert main(asked) == status
    figures = {figure["name"]: figure["value"] for figure in json.loads(out.read_text())["summary"]}
    assert figures["resnet32 n=2, bf16: speed, × reference"] == 2.5
    said = capsys.readouterr().out
    assert said.count("Below --require 2.6") == 2 * status, "in both precisions"


def test_the_readme_is_made_from_the_records() -> None:
    text = README.read_text()
    assert with_tables(text, RECORDS) == text, "python -m ffsd_ray.bench.readme"
    for file in RECORDS.iterdir():
        assert file.stat().st_size < 20_000, file.name
        assert f"<!-- records: {file.stem.rpartition('-')[0]} -->" in text, file.name


def test_a_record_is_taken_into_the_readme(tmp_path: Path) -> None:
    """Without what no table shows; what there is no record of stays as it is."""
    out, folder = tmp_path / "suite.json", tmp_path / "records"
    folder.mkdir()
    written(out, 2.5)
    with pytest.raises(RecordsError, match=r"is of the kind cpu-suite,-smoke; expected one of .*cpu-suite"):
        take(out, folder)
    out.write_text(out.read_text().replace("suite, smoke", "suite"))
    text = "before\n<!-- records: cpu-suite -->\nold\n<!-- end -->\n<!-- records: driver -->\nkept\n<!-- end -->\n"
    assert with_tables(text, folder) == text
    taken = take(out, folder)
    assert '"lr"' not in taken.read_text()
    assert re.fullmatch(r"cpu-suite-20\d{6}T\d{4}\.json", taken.name)
    shown = with_tables(text, folder)
    assert "| a step | 600 ms, 2.50 × the reference's speed |" in shown
    assert "| a step, `execution: compiled` |  | 600 ms, 2.50 × the reference's speed |" in shown
    assert "| at most possible, were every operation as fast as a matrix product | 15.00 × |" in shown
    assert "ResNet-32, batch 128, 32 px, " in shown
    assert "old" not in shown
    assert "<!-- records: driver -->\nkept\n<!-- end -->\n" in shown
    assert with_tables(shown, folder) == shown
    with pytest.raises(RecordsError, match="records: speed: expected one of"):
        with_tables("<!-- records: speed -->\n<!-- end -->\n", folder)


def test_a_gpu_suite_is_taken_into_the_readme_as_far_as_it_went(tmp_path: Path) -> None:
    out, folder = tmp_path / "suite.json", tmp_path / "records"
    folder.mkdir()
    record = written(out, 2.5)
    of_gpu = {"share_of_memory_floor": 0.125, "kernels": 1982, "epoch": {"median": 3.26}}
    for setting in record.points["resnet32 n=2"]["settings"].values():
        setting |= of_gpu
    record.content |= {"kind": "gpu suite", "points": {"resnet32 n=2": record.points["resnet32 n=2"]}}
    record.add("resnet56 n=2", {"error": "its process died"})
    record.write()
    take(out, folder)
    shown = with_tables("<!-- records: gpu-suite -->\n<!-- end -->\n", folder)
    assert "| bf16 | 600.0 | 2.5 | 1 | 3.3 | 1.05 | 1,982 | 12% |" in shown
    assert "1500 to 1500 ms a step" in shown
    assert "resnet56" not in shown


def test_what_is_short_is_timed_several_times_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as takes 0.05 s, which the turns that warm it up tell; the mean counts."""
    now, calls = [0.0], {"short": 0, "long": 0}

    def run(name: str, seconds: float) -> None:
        calls[name] += 1
        now[0] += seconds

    monkeypatch.setattr("ffsd_ray.bench.measure.timing.time.perf_counter", lambda: now[0])
    runs = {"short": partial(run, "short", 0.015625), "long": partial(run, "long", 0.0625)}
    timed = time_interleaved(runs, warm_up=1, repeats=3, device=CPU)
    assert calls == {"short": 1 + 3 * 4, "long": 1 + 3}
    assert (timed["short"].median, timed["long"].median) == (0.015625, 0.0625)
    assert timed["short"].repeats == 3


def test_a_trial_more_is_what_jobs_differ_by() -> None:
    seconds = {"local": (4, 6), "trial": (16, 18), "trainer": (24, 100)}
    points = {
        f"{launcher} {trials}": {"trials": trials, "seconds": of}
        for launcher, both in seconds.items()
        for trials, of in zip((1, 11), both, strict=True)
    }
    heading, lines = rows(points)
    assert heading == ["", "1", "11", "a further trial"]
    assert [line[-1] for line in lines] == ["0.20", "0.20", "7.60"]
    interrupted = points | {"local 24": {"trials": 24, "seconds": 9}}
    assert rows(interrupted) == (heading, lines)
    alone = {name: point for name, point in points.items() if point["trials"] == 1}
    assert rows(alone)[1][0] == ["local", "4.0", ""]


def test_what_was_not_measured_is_no_speed() -> None:
    assert slower_than(1e-9, gpu_summary({})) == ["resnet32 n=2, bf16: speed, × reference"]


def test_a_record_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "suite.json"
    Record(out, "gpu suite", "as a test has it", CPU)
    before = out.read_text()
    assert main(["--suite", "cpu", "--device", "cpu", "--smoke", "--out", str(out)]) == 2
    assert "another kind (gpu suite" in capsys.readouterr().err
    assert out.read_text() == before
    out.write_text("no JSON")
    assert main(["--suite", "cpu", "--device", "cpu", "--smoke", "--out", str(out)]) == 2


def good(value: int) -> dict[str, int]:
    return {"value": value}


def raising() -> dict[str, int]:
    raise RuntimeError("CUDA out of memory")


def dying() -> dict[str, int]:
    os._exit(1)


def slow() -> dict[str, int]:
    time.sleep(60)
    return {}


def measure(
    points: list[Point], record: Record, budget: float | None = None, limit: float | None = None
) -> tuple[list[str], list[str]]:
    """Points left out, and points begun, in their order."""
    begun: list[str] = []
    left = run_suite(points, record, say=lambda name, outcome: begun.append(name), budget=budget, limit=limit)
    return left, begun


@pytest.mark.slow
@pytest.mark.thorough
def test_a_suite_goes_on_after_failures_and_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "suite.json"
    record = Record(out, "gpu suite", "as a test has it", CPU)
    points = [
        Point("raises", raising),
        Point("first", partial(good, 1)),
        Point("dies", dying),
        Point("second", partial(good, 2)),
    ]
    assert measure(points[:3], record) == ([], ["raises", "first", "dies"])
    kept = json.loads(out.read_text())["points"]
    assert kept["raises"]["error"] == "RuntimeError: CUDA out of memory"
    assert kept["dies"]["error"] == "its process died"
    assert kept["first"]["value"] == 1
    again = Record(out, "gpu suite", "as a test has it", CPU)
    assert measure(points, again) == ([], ["second", "raises", "dies"]), "what failed is tried again, last"
    assert json.loads(out.read_text())["points"]["first"] == kept["first"]


def test_a_suite_keeps_its_budget(tmp_path: Path) -> None:
    record = Record(tmp_path / "suite.json", "gpu suite", "as a test has it", CPU)
    points = [Point("slow", slow), Point("good", partial(good, 1))]
    assert measure(points[:1], record, limit=1.0)[0] == []
    assert "took longer than 1 s" in record.points["slow"]["error"]
    fresh = Record(tmp_path / "other.json", "gpu suite", "as a test has it", CPU)
    assert measure(points, fresh, budget=1.0)[0] == ["slow", "good"]
    assert fresh.points == {}, "cut off by the budget, a point has not failed"


@pytest.mark.slow
@pytest.mark.thorough
def test_points_run() -> None:
    """The GPU suite's first point and its line, on the CPU with tiny images."""
    points = gpu_points(Scope(CPU, smoke=True), compiled=False)
    names = [point.name.rpartition(",")[0] or point.name for point in points]
    order = ["resnet32 n=2", "wrn-16-2 n=2", "resnet56 n=2", "resnet32 n=4", "resnet32 n=6", "n = 2 to 8"]
    assert list(dict.fromkeys(names)) == order
    (own,) = (own for own in points[0].measure()["settings"].values() if not own["literal"])
    assert own["times_literal_epoch"] > 0
    assert own["kernels"] is None
    compiled = {point.name for point in cpu_points(Scope(CPU), compiled=True)}
    assert compiled - {point.name for point in cpu_points(Scope(CPU), compiled=False)} == {"resnet32 n=2 compiled"}


def test_a_stream_a_network_is_measured_beside_one() -> None:
    """In one process and in turns, right behind the main figure; on the CPU there are no streams."""
    _, point, *_ = gpu_points(Scope(torch.device("cuda")), compiled=False)
    assert isinstance(point.measure, partial)
    one, several = point.measure.args[0].values()
    assert one.train.changed(member_streams=True) == several.train
    steps = [
        {"spec": spec.model_dump(), "literal": False, "step": {"median": seconds}}
        for spec, seconds in ((one, 0.006), (several, 0.004))
    ]
    (gain,) = (
        figure
        for figure in gpu_summary({point.name: {"settings": dict(enumerate(steps))}})
        if "a network" in figure.name
    )
    assert gain.value == pytest.approx(1.5)
    assert point.name not in {other.name for other in gpu_points(Scope(CPU), compiled=False)}


def test_two_gpus_are_measured_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured, in DDP and beside one; and what is called a gain is one."""
    scope = Scope(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    alone = {point.name for point in gpu_points(scope, compiled=False)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    (point,) = (point for point in gpu_points(scope, compiled=False) if point.name not in alone)
    assert isinstance(point.measure, partial)
    specs = point.measure.args[0]
    settings = [(spec.scale.workers, spec.train.execution) for spec in specs.values()]
    assert settings == [(1, "graph"), (2, "eager"), (2, "graph")]
    steps = {name: {"step": {"median": ms}} for name, ms in zip(specs, (6.0, 9.0, 3.0), strict=True)}
    summary = gpu_summary({point.name: {"workers": steps}})
    assert [figure.value for figure in summary if "2 captured workers" in figure.name] == [2.0, 3.0]


@pytest.mark.thorough
def test_cost_by_number_of_students() -> None:
    specs = [digits_spec({"name": "ffsd", "students": n}, data={"image_size": 8}, batch_size=8) for n in (2, 3, 5)]
    found = linear_cost(specs, CPU, repeats=2)
    assert found["students"].keys() == {"2", "3", "5"}
    assert all(each["median"] > 0 for each in found["students"].values())


def test_line() -> None:
    straight = fit({n: 0.2 + 0.1 * (n + 1) for n in range(2, 9)})
    assert (straight["a"], straight["b"], straight["r_squared"]) == pytest.approx((0.2, 0.1, 1.0))
    assert straight["largest_deviation"] == pytest.approx(0, abs=1e-9)
    assert fit({n: float(n**2) for n in range(2, 9)})["largest_deviation"] > 0.1


@pytest.mark.slow
@pytest.mark.thorough
def test_workers_are_processes() -> None:
    specs = {str(n): digits_spec({"name": "ffsd"}, data={"image_size": 8}, batch_size=8, workers=n) for n in (1, 2)}
    found = compare_workers(specs, repeats=2)["workers"]
    assert found.keys() == {"1", "2"}
    assert all(own["step"]["n"] == 2 and own["step"]["median"] > 0 for own in found.values())


def test_an_epoch_from_a_part_of_it() -> None:
    """What an epoch begins with is counted once."""

    def cost(steps: int) -> Timing:
        median = 3.0 + 0.5 * steps
        return Timing(median, median - 0.1, median + 0.1, 3)

    assert _extrapolated_epoch(cost(1), cost(11), 11, 101).median == pytest.approx(cost(101).median)
    assert _extrapolated_epoch(cost(1), cost(11), 11, 11) == pytest.approx(cost(11))


def test_bytes_of_a_step() -> None:
    """Proportional to the pixels of the maps, and half of it in bfloat16."""
    deep = {"backbone": "resnet20"}  # of shallow ones the losses, in float32, are a large part
    fp32, bf16 = (bytes_per_image(smallest(precision=it, **deep), 10, 16, CPU) for it in ("fp32", "bf16"))
    assert 0.45 < bf16 / fp32 < 0.65
    assert bytes_per_image(smallest(**deep), 10, 32, CPU) / fp32 == pytest.approx(4, rel=0.05)


def test_reference_sees_the_same_images() -> None:
    """Its transforms with nothing to augment give what training sees; ablations have no literal form here."""
    spec = smallest(precision="bf16").changed(data=data_settings("digits", image_size=8, crop_padding=0))
    literal = reference_spec(spec)
    assert literal is not None
    assert literal.train.precision == "fp32"
    dataset = data.load(spec.data)
    reference = Reference(literal, dataset, CPU)
    reference.epoch(1)
    samples = reference._samples
    plain = normalise(images_of(dataset.train)[:3], dataset.mean, dataset.std)
    torch.testing.assert_close(torch.stack([samples[index][0] for index in range(3)]), plain)
    for method in ({"name": "dml"}, {"name": "ffsd", "fusion": False}, {"name": "ffsd", "diversity": "l2"}):
        assert reference_spec(digits_spec(method)) is None


@pytest.mark.slow
@pytest.mark.thorough
def test_a_step_that_waits_for_its_loader_is_found(tmp_path: Path) -> None:
    """Large pictures, decoded by the process that trains."""
    noise = np.random.default_rng(0)
    for index in range(24):
        file = tmp_path / "pictures" / ("train", "test")[index >= 16] / ("even", "odd")[index % 2] / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(256, size=(1500, 1500, 3), dtype=np.uint8)).save(file)
    folder = {"name": "image_folder", "root": str(tmp_path / "pictures"), "image_size": 16}
    content = smallest().model_dump() | {"data": folder | {"stream": True, "loader_processes": 0}}
    spec = TrialSpec.model_validate(content)
    dataset = data.load(spec.data)
    found = compare({"streamed": spec}, lambda spec: dataset, CPU, TimingBudget(repeats=2, seconds=0.5, memory=False))
    own = found["settings"]["streamed"]
    assert own["loader"]["waits"]
    assert 0 < own["loader"]["share_waiting"] < 1
    assert 0 < own["loader"]["images_per_second"] < own["images_per_second"]
    assert "epoch" not in found["settings"]["literal Algorithm 1"], "the reference's images are in memory"
