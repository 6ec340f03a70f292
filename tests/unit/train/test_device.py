"""The device of a process that trains: how it is prepared, its memory read, and given back."""

import ctypes
import gc
import platform
import resource
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.bench.measure.process import resident_set
from ffsd_ray.bench.measure.workload import Workload
from ffsd_ray.data.base import BatchInputs
from ffsd_ray.methods import Losses
from ffsd_ray.records.run import RunRecords
from ffsd_ray.train.cuda_graph import WARM_UP
from ffsd_ray.train.device import memory_format, release_memory, use_device
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.environment import environment
from ffsd_ray.train.execution import Executor
from ffsd_ray.train.gpu_memory import Reading, mps_runs, read_peak

from helpers.small_run import again, local_job
from helpers.specs import digits_spec


def test_a_process_uses_the_gpu_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.set_device", used.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    use_device(torch.device("cpu"), "fp32")
    assert torch.backends.cudnn.allow_tf32
    use_device(torch.device("cuda"), "tf32")
    assert torch.backends.cudnn.allow_tf32
    use_device(torch.device("cuda:1"), "fp32")
    assert used == [torch.device("cuda:1")], "without a number it is the current one"
    assert not torch.backends.cudnn.allow_tf32, "fp32 is float32"
    assert torch.backends.cudnn.deterministic, "or a resumed trial is another one"


def test_images_have_the_layout_in_which_convolutions_are_fast() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    assert memory_format(gpu, "fp32") == torch.contiguous_format
    others = [(gpu, "tf32"), (gpu, "bf16"), (cpu, "fp32"), (cpu, "bf16")]
    assert {memory_format(*other) for other in others} == {torch.channels_last}  # type: ignore[arg-type]


def test_trials_can_share_a_gpu_where_mps_has_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    (tmp_path / "control").touch()
    assert mps_runs()


def test_every_engine_prepares_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr("ffsd_ray.train.engine.use_device", lambda device, precision: used.append(device))
    spec = digits_spec({"name": "baseline"})
    Engine(spec, data.load(spec.data), torch.device("cpu"))
    assert used == [torch.device("cpu")]


def test_records_name_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffsd_ray.train.environment._PROCESSORS", tmp_path / "cpuinfo")
    assert environment(torch.device("cpu"), 1)["device"]["name"] == platform.machine()
    core = (
        "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 17\nmodel name\t: Some Processor @ 2 GHz\nflags\t: fpu: vme\n\n"
    )
    (tmp_path / "cpuinfo").write_text(core * 2)
    expected = "Some Processor @ 2 GHz (family 26, model 17)"
    assert environment(torch.device("cpu"), 1)["device"]["name"] == expected


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_steps_on_a_cpu_get_their_memory_from_earlier_ones_until_it_is_given_back() -> None:
    spec = digits_spec({"name": "ffsd"}, data={"image_size": 16})
    work = Workload(spec, data.load(spec.data), torch.device("cpu"))
    for _ in range(2):
        work.step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        work.step()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000, "without it some 2,000 a step"
    del work
    held, _ = resident_set("self")
    tensor = torch.ones(16 << 20)  # 64 MiB
    del tensor
    release_memory()
    assert resident_set("self")[0] < held + (16 << 20)


def test_a_reading_of_memory_has_full_and_partial_batches_and_what_is_beside_the_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peak is what was taken at the end, and what torch had given back before."""
    bytes_of: dict[str, int | tuple[int, int]] = {
        "mem_get_info": (30, 100), "max_memory_reserved": 50, "memory_reserved": 40,
        "reset_peak_memory_stats": 0, "synchronize": 0,
    }  # fmt: skip
    for name, value in bytes_of.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, value=value: value)
    steps, step = Counter[int](), Engine.step
    predictions: list[str] = []

    def counted(self: Engine, parts: Sequence[tuple[BatchInputs, float]], factor: float) -> list[tuple[Losses, Tensor]]:
        steps[len(parts[0][0][0])] += 1
        return step(self, parts, factor)

    monkeypatch.setattr(Engine, "step", counted)
    monkeypatch.setattr(Engine, "measure", lambda self, split, batches: predictions.append(split))
    spec = digits_spec({"name": "baseline"}, data={"train_per_class": 3}, batch_size=20, steps_per_epoch=None)
    assert read_peak(spec, torch.device("cpu")) == Reading(total=100, peak=80)
    assert steps == {20: WARM_UP + 2, 10: WARM_UP + 2}
    assert predictions == ["test"] * (WARM_UP + 2)


@pytest.mark.thorough
def test_nothing_of_a_trial_is_left_when_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor after the last: images and weights would stay until Python looks for cycles. One of the trials fails."""
    executors: list[weakref.ref[Executor]] = []

    def left() -> int:
        return sum(executor() is not None for executor in executors)

    def new_executor(*arguments: Any, **options: Any) -> Executor:
        assert not left()
        executor = Executor(*arguments, **options)
        executors.append(weakref.ref(executor))
        return executor

    def one_fails(self: Executor, inputs: object) -> object:
        if len(executors) == 2:
            raise torch.OutOfMemoryError("no room")
        return train(self, inputs)  # type: ignore[arg-type]

    train = Executor.train
    monkeypatch.setattr("ffsd_ray.train.engine.Executor", new_executor)
    monkeypatch.setattr(Executor, "train", one_fails)
    (tmp_path / "job.yaml").write_text(
        local_job("method: {name: baseline}", "train: {epochs: 1, steps_per_epoch: 1}", "seed: [0, 1, 2]")
    )
    gc.disable()
    try:
        assert again(tmp_path) == 1
        assert not left()
    finally:
        gc.enable()
    run = RunRecords.open(str(tmp_path / "runs" / "small"))
    states = [run.trial(name).state() for name in run.trials()]
    assert sorted(states) == ["completed", "completed", "failed"]
    [failed] = [run.trial(name) for name in run.trials() if run.trial(name).state() == "failed"]
    assert failed.error()["kind"] == "TrialError", "which is not tried again"
    assert failed.error()["message"].startswith("OutOfMemoryError: no room (lower train.batch_size")
