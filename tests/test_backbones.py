"""Backbones against golden forward passes: parameter counts alone do not catch a wrong wiring."""

import json
import math
from pathlib import Path

import pytest
import torch

from ffsd_ray.backbones import BACKBONES, map_shapes

GOLDEN = json.loads((Path(__file__).parent / "golden" / "backbone_forward.json").read_text())["backbones"]


def fill(module: torch.nn.Module) -> None:
    """Every parameter from its own shape, as the golden file states."""
    for name, parameter in module.named_parameters():
        k = torch.arange(parameter.numel(), dtype=torch.float64)
        if parameter.ndim >= 2:
            fan_in = math.prod(parameter.shape[1:])
            values = math.sqrt(2 / fan_in) * torch.sin(0.7 * k + 0.3 * parameter.ndim + 0.01 * sum(parameter.shape))
        elif name.endswith("weight"):
            values = 1 + 0.1 * torch.sin(k)
        else:
            values = 0.05 * torch.cos(k)
        parameter.data.copy_(values.view_as(parameter))


@pytest.mark.parametrize("name", [name for name in BACKBONES if name in GOLDEN])
def test_golden_forward(name: str) -> None:
    golden = GOLDEN[name]
    net = BACKBONES[name](classes_of(name)).double().train()
    fill(net)
    size = golden["input_size"]
    images = torch.sin(0.01 * torch.arange(2 * 3 * size * size, dtype=torch.float64)).view(2, 3, size, size)
    features = net(images)
    assert sum(p.numel() for p in net.parameters()) == golden["params"]
    close = {"atol": 1e-9, "rtol": 0}
    first = torch.tensor(golden["logits_first5"], dtype=torch.float64)
    torch.testing.assert_close(features.logits[0, :5], first, **close)
    assert features.logits.abs().sum().item() == pytest.approx(golden["logits_sum_abs"], abs=1e-8)
    for feature_map, expected in zip(features.maps, golden["maps"], strict=True):
        assert list(feature_map.shape[1:]) == expected["shape"]
        assert feature_map.mean().item() == pytest.approx(expected["mean"], abs=1e-9)
        assert feature_map.square().mean().item() == pytest.approx(expected["mean_square"], abs=1e-9)
        torch.testing.assert_close(
            feature_map.flatten()[:3], torch.tensor(expected["first3"], dtype=torch.float64), **close
        )
    assert map_shapes(BACKBONES[name], size) == tuple(tuple(m["shape"]) for m in golden["maps"])


def classes_of(name: str) -> int:
    """The ImageNet backbones were recorded with 1000 classes, the others with 100."""
    return 1000 if GOLDEN[name]["input_size"] > 64 else 100


def test_convolutions_start_as_published() -> None:
    torch.manual_seed(0)
    weight = BACKBONES["resnet56"](100).layer3[4].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
