"""Backbones: golden forward passes (counts alone do not catch a wrong wiring), counts, and what works with FFSD."""

import contextlib
import copy
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from ffsd_ray.backbones import BACKBONES, UnfitImages, backbone, map_shapes
from ffsd_ray.card import Card
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import Batch
from ffsd_ray.deployed import load_model, pack
from ffsd_ray.errors import JobError, RecordsError, TrialError
from ffsd_ray.methods.ffsd import FfsdSettings
from ffsd_ray.nets.fusion import Decoder, Fusion
from ffsd_ray.nets.self_distillation import SelfDistillation
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.step import Step

from helpers import paths
from helpers.tiers import often

GOLDEN = json.loads((paths.GOLDEN / "backbone_forward.json").read_text())["backbones"]


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
    first = torch.tensor(golden["logits_first5"], dtype=torch.float64)
    torch.testing.assert_close(features.logits[0, :5], first, atol=1e-9, rtol=0)
    assert features.logits.abs().sum().item() == pytest.approx(golden["logits_sum_abs"], abs=1e-8)
    for feature_map, expected in zip(features.maps, golden["maps"], strict=True):
        assert list(feature_map.shape[1:]) == expected["shape"]
        assert feature_map.mean().item() == pytest.approx(expected["mean"], abs=1e-9)
        assert feature_map.square().mean().item() == pytest.approx(expected["mean_square"], abs=1e-9)
        first = torch.tensor(expected["first3"], dtype=torch.float64)
        torch.testing.assert_close(feature_map[0, 0, 0, :3], first, atol=1e-9, rtol=0)
    assert map_shapes(BACKBONES[name], size) == tuple(tuple(m["shape"]) for m in golden["maps"])


def classes_of(name: str) -> int:
    """The ImageNet backbones were recorded with 1000 classes, the others with 100."""
    return 1000 if GOLDEN[name]["input_size"] > 32 else 100


def test_convolutions_start_as_published() -> None:
    torch.manual_seed(0)
    weight = BACKBONES["resnet56"](100).get_parameter("layer3.4.conv1.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)


class Counts(NamedTuple):
    """What a backbone amounts to: parameters, multiply-accumulates in millions to one digit, feature maps."""

    classes: int
    size: int
    parameters: int
    megamacs: str
    maps: tuple[tuple[int, int, int], ...]


CIFAR_RESNET = ((16, 32, 32), (32, 16, 16), (64, 8, 8))
WIDE_RESNET = ((32, 32, 32), (64, 16, 16), (128, 8, 8))
IMAGENET_RESNET = ((64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7))

COUNTS = {
    "resnet8": Counts(100, 32, 83_892, "12.5", CIFAR_RESNET),
    "resnet14": Counts(100, 32, 181_108, "26.7", CIFAR_RESNET),
    "resnet20": Counts(100, 32, 278_324, "40.8", CIFAR_RESNET),
    "resnet32": Counts(100, 32, 472_756, "69.1", CIFAR_RESNET),
    "resnet56": Counts(100, 32, 861_620, "125.8", CIFAR_RESNET),
    "resnet110": Counts(100, 32, 1_736_564, "253.2", CIFAR_RESNET),
    "wrn-16-2": Counts(100, 32, 704_420, "129.4", WIDE_RESNET),
    "wrn-40-2": Counts(100, 32, 2_258_084, "355.9", WIDE_RESNET),
    "densenet-40-12": Counts(100, 32, 1_100_428, "283.0", ((168, 32, 32), (312, 16, 16), (456, 8, 8))),
    "googlenet": Counts(100, 32, 6_258_500, "1521.8", ((480, 32, 32), (832, 16, 16), (1024, 8, 8))),
    "vgg-16": Counts(
        100, 32, 14_774_436, "313.2", ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2))
    ),
    "resnet18": Counts(1000, 224, 11_689_512, "1814.1", IMAGENET_RESNET),
    "resnet34": Counts(1000, 224, 21_797_672, "3663.8", IMAGENET_RESNET),
}


def test_every_family_is_counted() -> None:
    """Of ResNet-(6 n + 2) some: what lies between them has as many blocks more."""
    assert {name for name in BACKBONES if name not in COUNTS} == {
        f"resnet{depth}" for depth in range(26, 110, 6) if depth not in (32, 50, 56)
    }


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    counts = COUNTS[name]
    with torch.device("meta"):
        net = backbone(name)(counts.classes)
        with FlopCounterMode(display=False) as counter:
            logits = net(torch.empty(2, 3, counts.size, counts.size)).logits
    assert logits.shape == (2, counts.classes)
    parameters = sum(p.numel() for p in net.parameters())
    megamacs = f"{counter.get_total_flops() / 2 / 2 / 1e6:.1f}"
    maps = map_shapes(BACKBONES[name], counts.size)
    print(f"{name}: {parameters:,} parameters, {megamacs} M MACs, {', '.join(f'{c}×{h}×{w}' for c, h, w in maps)}")
    assert Counts(counts.classes, counts.size, parameters, megamacs, maps) == counts


@pytest.mark.parametrize("size", [32, 64, 75, 224])
@pytest.mark.parametrize("name", COUNTS)
def test_self_distillation_follows_from_the_maps(name: str, size: int) -> None:
    shapes = map_shapes(backbone(name), size)
    with torch.device("meta"):
        maps = SelfDistillation(shapes)(torch.empty(2, *shapes[-1]))
    assert tuple(tuple(m.shape[1:]) for m in maps) == shapes[:-1]


@pytest.mark.parametrize(("name", "least"), [("vgg-16", 32), ("densenet-40-12", 4), ("torchvision:convnext_tiny", 32)])
def test_images_too_small(name: str, least: int) -> None:
    with pytest.raises(UnfitImages, match="too small"):
        map_shapes(backbone(name), least - 1)
    map_shapes(backbone(name), least)


@pytest.mark.parametrize("name", often(("resnet20", "vgg-16", "densenet-40-12"), COUNTS, others="slow"))
def test_no_map_is_empty(name: str) -> None:
    for size in (1, 2, 3, 4, 7, 8, 15, 17, 31):
        with contextlib.suppress(UnfitImages):
            assert min(min(shape) for shape in map_shapes(backbone(name), size)) > 0


@pytest.mark.parametrize("name", COUNTS)
def test_every_layer_starts_as_published(name: str) -> None:
    """Convolution weights from N(0, 2 / (k² · C_out)), batch norm 1 and 0; biases and linear layers as torch draws."""
    torch.manual_seed(0)
    net = backbone(name)(100)
    for path, layer in net.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert bool((layer.weight == 1).all()), path
            assert bool((layer.bias == 0).all()), path
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 10_000:
                fan_out = layer.kernel_size[0] ** 2 * layer.out_channels
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), path
            drawn = [layer.bias] if layer.bias is not None else []
            drawn += [layer.weight] if isinstance(layer, torch.nn.Linear) else []
            for values in drawn:  # uniform between ± 1 / √fan_in
                bound = 1 / math.sqrt(fan_in)
                assert 0.8 * bound < values.abs().max().item() <= bound, path
    biased = any(isinstance(layer, torch.nn.Conv2d) and layer.bias is not None for layer in net.modules())
    assert biased == (name in ("wrn-16-2", "wrn-40-2", "vgg-16", "googlenet"))


def test_modules_beside_the_backbones_start_as_published() -> None:
    """Fusion module and decoder as the backbones do; self-distillation modules keep torch's own initialisation."""
    torch.manual_seed(0)
    for module in (Fusion(2, 64, 100), Decoder(2, 64)):
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                fan_out = layer.kernel_size[0] ** 2 * layer.out_channels
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
    for layer in SelfDistillation([(16, 32, 32), (32, 16, 16), (64, 8, 8)]).modules():
        if isinstance(layer, torch.nn.ConvTranspose2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.99 * bound < layer.weight.abs().max().item() <= bound


#: Sums over all weights (of the values, of their squares) for seed 0 and 10 classes.
SUMS_OF_WEIGHTS = {
    "resnet20": [-58.2737, 1350.0033],
    "densenet-40-12": [111.0106, 17812.4992],
    "resnet18": [-136.9834, 7697.9241],
    "wrn-16-2": [-3.9794, 1793.9532],
}


@pytest.mark.parametrize("name", SUMS_OF_WEIGHTS)
def test_a_seed_keeps_its_initial_weights(name: str) -> None:
    """Recorded before biases kept their own draws: no weight depends on that, with biases or without."""
    torch.manual_seed(0)
    weights = [parameter.double() for parameter in backbone(name)(10).parameters() if parameter.ndim > 1]
    found = [sum((weight**power).sum().item() for weight in weights) for power in (1, 2)]
    assert found == pytest.approx(SUMS_OF_WEIGHTS[name], abs=1e-3)


#: Of torchvision's models at 224×224.
TORCHVISION_MAPS = {
    "resnet50": ((256, 56), (512, 28), (1024, 14), (2048, 7)),  # the ends of the stages, not the inside of a block
    "densenet121": ((128, 56), (256, 28), (512, 14), (1024, 7)),
    "mobilenet_v3_small": ((72, 56), (96, 28), (288, 14), (576, 7)),  # not squeeze-and-excitation
    "googlenet": ((192, 56), (480, 28), (832, 14), (1024, 7)),  # no auxiliary classifiers
    "inception_v3": ((192, 52), (288, 25), (768, 12), (2048, 5)),
    "swin_t": ((96, 56), (192, 28), (384, 14), (768, 7)),  # channels last
    "regnet_x_400mf": ((32, 56), (64, 28), (160, 14), (400, 7)),
    "alexnet": ((64, 55), (192, 27), (256, 13), (256, 6)),  # not what pooling to a fixed size makes of the last one
    "squeezenet1_1": ((64, 111), (128, 55), (256, 27), (512, 13)),  # not the class scores
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", often(("mobilenet_v3_small", "swin_t", "alexnet"), TORCHVISION_MAPS, others="slow"))
def test_torchvision_maps(name: str) -> None:
    build = backbone(f"torchvision:{name}")
    assert build is backbone(f"torchvision:{name}")
    shapes = map_shapes(build, 224)
    assert shapes == tuple((channels, side, side) for channels, side in TORCHVISION_MAPS[name])
    with torch.device("meta"):
        features = build(7)(torch.empty(2, 3, 224, 224))
        SelfDistillation(shapes)(features.maps[-1])
    assert features.logits.shape == (2, 7)


def test_torchvision_resnet18_is_ours() -> None:
    """The same weights: the same logits and maps, so the maps found are the ends of the stages."""
    torch.manual_seed(0)
    ours, theirs = backbone("resnet18")(10).train(), backbone("torchvision:resnet18")(10).train()
    theirs.get_submodule("net").load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for mode in (True, False):
        expected, found = ours.train(mode)(images), theirs.train(mode)(images)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.maps, expected.maps)


@pytest.mark.thorough
def test_channels_last_maps_are_permuted() -> None:
    """A swin transformer's first map is what its first stage returns, with the channels moved to the front."""
    torch.manual_seed(0)
    net = backbone("torchvision:swin_t")(10).eval()
    whole = torchvision.models.swin_t(num_classes=10).eval()
    whole.load_state_dict(net.get_submodule("net").state_dict())
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        features = net(images)
        torch.testing.assert_close(features.maps[0], whole.features[:2](images).permute(0, 3, 1, 2))
        torch.testing.assert_close(features.logits, whole(images))


@pytest.mark.thorough
def test_torchvision_is_imported_when_it_is_named() -> None:
    program = "import sys, ffsd_ray.backbones; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    often(
        ("resnet18", "torchvision:mobilenet_v3_small"),
        ["resnet18", "torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:convnext_tiny"],
        others="slow",
    ),
)
def test_two_steps_of_ffsd(name: str) -> None:
    spec = TrialSpec.model_validate(
        {
            "data": {"name": "digits", "image_size": 64},
            "backbone": {"name": name},
            "method": {"name": "ffsd"},
            "train": {"batch_size": 4, "lr": 0.01},
        }
    )
    method = build_method(spec, 10, 64).train()
    step = Step(method, optimisers.build(method, spec.train))
    method.begin_epoch(1)
    first = copy.deepcopy(method.deployed[1].state_dict())
    for _ in range(2):
        losses = step(Batch([torch.randn(4, 3, 64, 64)], torch.randint(10, (4,)), 1.0))
        assert "leader/self_distillation" in losses.terms
        for term, value in losses.terms.items():
            assert math.isfinite(value.item()), term
    assert any(not torch.equal(first[key], value) for key, value in method.deployed[1].state_dict().items())
    assert method.eval().predict(torch.randn(3, 3, 64, 64))["leader"].shape == (3, 10)


JOB = "name: a\ndata: {name: digits, image_size: 64}\nbackbone: {name: torchvision:resnet18}\nmethod: {name: ffsd}\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("torchvision:resnet18", "torchvision:vit_b_16", "3:18|no feature maps of several resolutions|tokens"),
        pytest.param(
            "torchvision:resnet18",
            "torchvision:maxvit_t",
            "3:18|takes images of one size only, 224×224",
            marks=pytest.mark.slow,
        ),
        ("torchvision:resnet18", "torchvision:resnet81", "3:18|torchvision's classifiers|`torchvision:resnet18`?"),
        ("torchvision:resnet18", "'torchvision:'", "3:18|torchvision's classifiers"),
        ("torchvision:resnet18", "wrn-16-4", "3:18|resnet20|or torchvision:NAME|Did you mean `wrn-16-2`?"),
        ("torchvision:resnet18", "torchvision:inception_v3", "3:18|Images of 64×64 are too small"),
        ("image_size: 64", "image_size: 32", "4:16|last feature map of 3 entries or more; here it is 1×1"),
        ("image_size: 64}\nbackbone: {name: torchvision:resnet18", "image_size: 16}\nbackbone: {name: vgg-16", "3:18"),
    ],
)
def test_refused_with_the_reason(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    load_job(path)
    path.write_text(JOB.replace(old, new))
    place, *fragments = said.split("|")
    with pytest.raises(JobError) as error:
        load_job(path)
    message = str(error.value)
    assert f"job.yaml:{place}" in message
    assert message.endswith("1 problem")
    for fragment in fragments:
        assert fragment in message


def test_maps_that_no_stride_joins_are_refused() -> None:
    problems = list(FfsdSettings().problems(((3, 6, 6), (4, 5, 5))))
    assert [problem.key for problem in problems] == [("name",)]
    assert "no stride leads from a 5×5 map to a 6×6 one" in problems[0].expected


def test_images_known_late_may_be_too_small() -> None:
    spec = TrialSpec.model_validate(
        {
            "data": {"name": "parquet", "train": "a.parquet", "test": "b.parquet"},
            "backbone": {"name": "vgg-16"},
            "method": {"name": "baseline"},
        }
    )
    with pytest.raises(TrialError, match="Images of 16×16 are too small"):
        build_method(spec, 10, 16)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "torchvision:regnet_x_400mf"])
def test_leader_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = backbone(name)(3).eval()
    spec = {"data": {"name": "digits"}}
    card = Card(name, ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3, 32, "fp32", "leader", 1, "test", 33.0, spec, "none")
    path = tmp_path / "leader.safetensors"
    path.write_bytes(pack(net.state_dict(), card))
    before = torch.random.get_rng_state()
    leader = load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(leader(images), net(images).logits)
    path.write_bytes(pack(net.state_dict(), dataclasses.replace(card, backbone="torchvision:vit_b_16")))
    with pytest.raises(RecordsError, match=r"unknown backbone torchvision:vit_b_16: .* tokens"):
        load_model(path)
