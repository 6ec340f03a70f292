"""Weights files from strangers: each is used, or refused in one message; none is a traceback, a hang or a nan."""

import json
import math
import os
import random
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from ffsd_ray.backbones import BACKBONES
from ffsd_ray.classify import main as classify
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import RecordsError
from ffsd_ray.evaluate import main as evaluate
from ffsd_ray.export import main as export
from ffsd_ray.run import main as run
from ffsd_ray.stamp import KEY, blank, stamped

from helpers.images import png
from helpers.small_run import local_job

SPEC = TrialSpec.model_validate(
    {"data": {"name": "digits", "image_size": 8}, "backbone": {"name": "resnet20"}, "method": {"name": "baseline"}}
).model_dump(mode="json")
CARD: dict[str, Any] = {
    "backbone": "resnet20",
    "classes": [str(digit) for digit in range(10)],
    "mean": [0.3, 0.3, 0.3],
    "std": [0.4, 0.4, 0.4],
    "image_size": 8,
    "precision": "fp32",
    "member": "student",
    "epoch": 3,
    "split": "test",
    "top1": 50.0,
    "spec": SPEC,
    "trial": "none",
}
ODD: list[Any] = [
    *(math.nan, math.inf, -math.inf, -1, 0, 0.5, 1, 2, 2**31, 2**63, 10**400, 1e300, True, None, "", "x", "../x"),
    *("a\0b", "\x1b[2J", "torchvision:os", "val", "train", "bf16", "é" * 9_999, [], {}, [1, 2, 3], [0, 0, 0], [[]]),
    *([math.nan] * 3, [1e300] * 3, {"name": 1}, {"name": "digits", "stream": 1}, [str(n) for n in range(3_000)], ["a"]),
    *(["a"] * 10, [""] * 10, [None] * 10, list(range(10)), json.loads("[" * 150 + "]" * 150)),
]
TYPES = [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64, torch.uint8, torch.bool]
VALUES = [math.nan, math.inf, -math.inf, 1e38, -1e38, -1.0, 0.0, 3e-39]


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return BACKBONES["resnet20"](10).state_dict()


def packed(tensors: dict[str, Tensor], card: dict[str, Any]) -> bytes:
    """A weights file with a sound stamp, whatever is in it."""
    return bytes(stamped(save(tensors, metadata={"card": json.dumps({KEY: blank("trial none"), **card})})))


def crafted(number: int, sound: dict[str, Tensor]) -> bytes:
    """A file that differs from a sound one in its card, its trial's spec, its tensors or its bytes."""
    draw = random.Random(number)
    card, tensors = json.loads(json.dumps(CARD)), dict(sound)
    kind = number % 7
    if kind < 2:
        for key in draw.sample(list(card), draw.choice([1, 1, 2])):
            if draw.random() < 0.15:
                del card[key]
            else:
                card[key] = draw.choice(ODD)
    elif kind == 2:
        section = card["spec"][draw.choice(["data", "train", "method", "scale", "backbone"])]
        below = card["spec"] if draw.random() < 0.2 else section
        below[draw.choice(list(below))] = draw.choice(ODD)
    elif kind in (3, 4):
        names = list(tensors) if draw.random() < 0.3 else [draw.choice(list(tensors))]
        change = draw.randrange(5)
        value, dtype = draw.choice(VALUES), draw.choice(TYPES)
        for name in names:
            tensor = tensors[name].clone()
            if change < 2 and tensor.is_floating_point():
                tensor.view(-1)[draw.randrange(tensor.numel())] = value
            elif change == 2:
                tensor = tensor.to(dtype)
            elif change == 3:
                tensor = draw.choice([tensor.flatten(), tensor[None], tensor.reshape(-1)[:0], tensor.new_zeros(())])
            elif change == 4:
                tensor = torch.full_like(tensor, 7 if tensor.is_floating_point() else 0)
            tensors[name] = tensor.contiguous()
    elif kind == 5:
        for name in draw.sample(list(tensors), draw.randrange(3)):
            del tensors[name]
        for index in range(draw.choice([0, 1, 30])):
            tensors[f"{draw.choice(['net.', '', 'a' * 500])}{index}"] = torch.zeros(draw.randrange(3))
    content = packed(tensors, card)
    if kind < 6:
        return content
    changed = bytearray(content)
    for _ in range(draw.choice([1, 3])):
        changed[draw.randrange(draw.choice([8, 400, len(changed)]))] = draw.randrange(256)
    return bytes(changed[: draw.choice([len(changed), len(changed), draw.randrange(len(changed))])])


def tried(numbers: range, folder: Path, said: Callable[[], str]) -> Counter[str]:
    """How loading each file, and classifying and evaluating with those that load, ended."""
    picture, file, sound = folder / "x.png", folder / "x.safetensors", weights()
    picture.write_bytes(png(torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)))
    ends: Counter[str] = Counter()
    for number in numbers:
        file.write_bytes(crafted(number, sound))
        for name, program, arguments in (("classify", classify, [str(picture)]), ("evaluate", evaluate, [])):
            try:
                status = program([str(file), *arguments])
                words = said()
                end = "nan" if status == 0 and "nan" in words else f"{status}" + " long" * (len(words) > 5000)
            except (Exception, SystemExit) as error:
                said()
                end = f"traceback {type(error).__name__}"
            ends[f"{name}: {end}"] += 1
    return ends


def output(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def said() -> str:
        return "".join(capsys.readouterr())

    return said


def assert_used_or_refused(ends: Counter[str]) -> None:
    assert ends.keys() <= {"classify: 0", "classify: 2", "evaluate: 0", "evaluate: 2"}, ends
    assert ends["classify: 0"] > 5, ends
    assert ends["classify: 2"] > ends["classify: 0"], ends


@pytest.mark.thorough
def test_crafted_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_used_or_refused(tried(range(70), tmp_path, output(capsys)))


@pytest.mark.slow
def test_many_crafted_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_used_or_refused(tried(range(140, 1540), tmp_path, output(capsys)))


def saved(path: Path, changes: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    path.write_bytes(packed(tensors or weights(), CARD | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "validation"}, "split: expected 'train', 'val' or 'test'"),
        ({"classes": []}, "classes: .*at least 2 items"),
        ({"classes": ["a"] * 10}, "classes: expected every class once"),
        ({"mean": [0.1, 0.2, 3.0]}, "mean.2: expected less than or equal to 1"),
        ({"std": [0.1, 0.2, 0.0]}, "std.2: expected greater than 0"),
        ({"std": [0.1, 0.2, math.nan]}, "std.2: "),
        ({"top1": 1e300}, "top1: expected less than or equal to 100"),
        ({"epoch": -1}, "epoch: expected greater than or equal to 0"),
        ({"image_size": 10**6}, "image_size: expected less than or equal to"),
        ({"precision": "fp8"}, "precision: expected"),
        ({"spec": {}}, "spec: expected a key data.name"),
        ({"backbone": "resnet21"}, "unknown backbone resnet21"),
    ],
)
def test_a_card_is_held_to_its_bounds(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "x.safetensors", changes)
    with pytest.raises(RecordsError, match=f"x.safetensors: .*{said}") as refused:
        load_model(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("every", [True, False])
def test_tensors_of_another_type(dtype: torch.dtype, every: bool, tmp_path: Path) -> None:
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() and (every or name == "fc.weight") else tensor
        for name, tensor in weights().items()
    }
    with pytest.raises(RecordsError, match=r"expected resnet20 for 10 classes: .* instead of F32"):
        load_model(saved(tmp_path / "x.safetensors", {}, tensors))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    tensors = weights()
    tensors["fc.bias"][3] = value
    with pytest.raises(RecordsError, match=r"expected finite weights, found others in fc\.bias"):
        load_model(saved(tmp_path / "x.safetensors", {}, tensors))


@pytest.mark.thorough
def test_finite_weights_whose_logits_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = weights()
    tensors["fc.weight"].fill_(1e38)
    tensors["bn1.running_var"].fill_(-1.0)
    file, picture = saved(tmp_path / "x.safetensors", {}, tensors), tmp_path / "x.png"
    picture.write_bytes(png(torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)))
    programs = [(classify, [str(picture)]), (evaluate, [])]
    if pytest.importorskip("onnxscript"):
        programs.append((export, ["--onnx", str(tmp_path / "x.onnx")]))
    for program, arguments in programs:
        assert program([str(file), *arguments]) == 2
        out, err = capsys.readouterr()
        assert "computes logits that are not finite" in err
        assert "%" not in out


@pytest.mark.thorough
def test_many_unknown_names_are_told_at_once(tmp_path: Path) -> None:
    unknown = {f"layer{index}.weight": torch.zeros(1) for index in range(10_000)}
    file = saved(tmp_path / "x.safetensors", {}, weights() | unknown)
    began = time.process_time()
    with pytest.raises(RecordsError, match=r"unknown layer\d+\.weight, .* and 9997 more$"):
        load_model(file)
    assert time.process_time() - began < 10, "51 s when torch compared them"


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "nothing", "NUL"])
def test_what_is_no_file_is_not_read(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {"device": "/dev/zero", "NUL": f"{tmp_path}/a\0b"}.get(kind, str(tmp_path / kind))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    with pytest.raises(RecordsError):
        load_model(path)
    if kind != "NUL":
        assert classify([path, path]) == 2
    assert classify([str(saved(tmp_path / "x.safetensors", {})), path]) == 2
    job = tmp_path / "job.yaml"
    job.write_text(local_job(f"method: {{name: kd, teacher_weights: {json.dumps(path)}}}"))
    capsys.readouterr()
    assert run([str(job), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{job}:4:")
    assert "method.teacher_weights" in err


@pytest.mark.thorough
def test_a_teacher_file_is_held_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = weights()
    tensors["fc.bias"][0] = math.nan
    file = saved(tmp_path / "teacher.safetensors", {}, tensors)
    job = tmp_path / "job.yaml"
    job.write_text(
        local_job(f"method: {{name: kd, teacher_weights: {file}}}", "train: {epochs: 1, steps_per_epoch: 1}")
    )
    assert run([str(job), "--storage", str(tmp_path / "runs")]) == 1
    assert "expected finite weights" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs")


def test_a_header_that_says_more_than_there_is(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(RecordsError):
        load_model(tmp_path / "x.safetensors")
