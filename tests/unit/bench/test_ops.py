"""Operations of a training step, counted by dispatch."""

from pathlib import Path

import pytest
import torch

from ffsd_ray.bench.ops import PARTS, main, operations, recorded

from helpers.specs import digits_spec


def test_an_operation_reads_its_inputs_and_writes_its_results() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, dtype=torch.bfloat16)
    counted = recorded(lambda: (a.t().add(1.0), a.view(12), torch.empty_like(a), b.float(), a.mul_(a)))
    assert counted.number == {"add": 1, "_to_copy": 1, "mul_": 1}
    assert counted.bytes == {"add": 2 * 48, "_to_copy": 8 + 16, "mul_": 2 * 48}


def test_a_step_of_ffsd_keeps_within_bounds() -> None:
    """Of ResNet-32 in bfloat16, as a GPU would run it: 1,748 forward and backward before weights, maps and logits were
    converted, counters raised and maps compared together."""
    spec = digits_spec({"name": "ffsd"}, backbone="resnet32", batch_size=128, precision="bf16")
    found = operations(spec, 100, 8)
    assert list(found) == list(PARTS)
    numbers = {part: sum(counted.number.values()) for part, counted in found.items()}
    assert 900 < numbers["forward and backward"] <= 1089
    assert numbers["update"] <= 4, "optimisers that are fused"
    assert numbers["meters"] <= 33
    assert numbers["batch"] <= 12
    assert found["forward and backward"].number["native_batch_norm"] == 111
    # Activations of three networks, in bfloat16, are what a step moves; of CIFAR's images 16 times as much.
    assert 0.3e9 < sum(found["forward and backward"].bytes.values()) < 0.43e9


def test_the_average_is_part_of_the_update() -> None:
    plain, averaged = (
        operations(digits_spec({"name": "baseline"}, backbone="resnet8", ema=ema), 10, 16)["update"].number
        for ema in (None, 0.9)
    )
    assert averaged - plain == {"_foreach_lerp_": 1, "_foreach_copy_": 1}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: j\ndata: {name: cifar10}\nbackbone: {name: resnet8}\ntrain: {epochs: 1}\n"
        "search: {grid: {method: [{name: baseline}, {name: afd}]}}\n"
    )
    assert main([str(job), "--rows", "3"]) == 0
    shown = capsys.readouterr().out
    assert "baseline: a step of 128 images, fp32" in shown
    assert "afd n=2: a step of 128 images, fp32" in shown
    assert shown.count("forward and backward") == 2
    assert shown.count("  convolution") >= 2
