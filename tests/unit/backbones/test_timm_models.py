"""timm's models as backbones: three families trained, deployed and exported, and what is refused."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ffsd_ray.backbones import LIBRARIES, backbone, map_shapes
from ffsd_ray.card import Card
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import Batch
from ffsd_ray.deployed import load_model, pack
from ffsd_ray.errors import JobError, TrialError
from ffsd_ray.export import export_program
from ffsd_ray.nets.batch_norm import synchronised
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.starting_weights import load_starting_weights
from ffsd_ray.train.step import Step

from helpers.tiers import often

timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")

#: Channels and sides of the feature maps for images of 64×64.
MAPS = {
    "resnet10t": ((64, 16), (128, 8), (256, 4), (512, 2)),
    "mobilenetv3_small_050": ((8, 16), (16, 8), (24, 4), (288, 2)),
    "regnetx_002": ((24, 16), (56, 8), (152, 4), (368, 2)),
}


def spec_of(name: str, method: str, **backbone_settings: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "data": {"name": "digits", "image_size": 64},
            "backbone": {"name": f"timm:{name}", **backbone_settings},
            "method": {"name": method},
            "train": {"batch_size": 4, "lr": 0.01},
        }
    )


@pytest.mark.parametrize("name", MAPS)
def test_maps_and_logits_are_the_models(name: str) -> None:
    torch.manual_seed(0)
    build = backbone(f"timm:{name}")
    assert map_shapes(build, 64) == tuple((channels, side, side) for channels, side in MAPS[name])
    net = build(7).eval()
    whole = timm.create_model(name, num_classes=7).eval()
    whole.load_state_dict(net.get_submodule("net").state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(images).logits, whole(images))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("resnet10t", "ffsd"),
        ("mobilenetv3_small_050", "one"),  # whose batch norms have activations and are cut into branches
        *(
            pytest.param(name, method, marks=pytest.mark.thorough)
            for name, method in (("mobilenetv3_small_050", "ffsd"), ("regnetx_002", "ffsd"), ("regnetx_002", "one"))
        ),
    ],
)
def test_a_step_moves_every_weight_and_statistic(name: str, method: str) -> None:
    spec = spec_of(name, method)
    group = build_method(spec, 10, 64).train()
    step = Step(group, optimisers.build(group, spec.train))
    group.begin_epoch(1)
    before = {key: value.clone() for key, value in group.deployed[1].state_dict().items()}
    for _ in range(2):  # in the first, what comes before weights that timm sets to zero has no gradient
        losses = step(Batch([torch.randn(4, 3, 64, 64)], torch.randint(10, (4,)), 1.0))
    assert all(math.isfinite(value.item()) for value in losses.terms.values())
    after = group.deployed[1].state_dict()
    assert [key for key, value in before.items() if torch.equal(after[key], value)] == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", often(("mobilenetv3_small_050",), MAPS, others="slow"))
def test_it_is_deployed_and_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = backbone(f"timm:{name}")(3).eval()
    spec = {"data": {"name": "digits"}}
    card = Card(
        f"timm:{name}", ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3, 32, "fp32", "leader", 1, "test", 33.0, spec, "none"
    )
    (path := tmp_path / "model.safetensors").write_bytes(pack(net.state_dict(), card))
    model, images = load_model(path), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), net(images).logits)
    assert export_program(model, tmp_path / "model.pt2") < 1e-4


def test_synchronised_batch_norms_keep_their_activations() -> None:
    torch.manual_seed(0)
    net, images = backbone("timm:regnetx_002")(5).eval(), torch.randn(1, 3, 32, 32)
    expected = net(images).logits
    converted = synchronised(net)
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in converted.modules())
    assert torch.equal(converted(images).logits, expected)


def test_weights_that_timm_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through timm's own way to them, with a dictionary in the download's place."""
    torch.manual_seed(3)
    weights = timm.create_model("resnet10t").state_dict()
    asked = []

    def from_hub(model: str, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        asked.append(model)
        return dict(weights)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    spec = spec_of("resnet10t", "baseline", weights="default")
    state = torch.random.get_rng_state()
    LIBRARIES["timm"].default_weights("resnet10t")
    assert torch.equal(torch.random.get_rng_state(), state)
    group = build_method(spec, 10, 64)
    notes = load_starting_weights(group, spec.backbone, 10)
    network = group.networks["student"].state_dict()
    assert set(asked) == {"timm/resnet10t.c3_in1k"}
    assert torch.equal(network["net.layer4.0.conv2.weight"], weights["layer4.0.conv2.weight"])
    assert notes == ["backbone.weights: default: in 1 of 1 networks; new, of 10 classes: net.fc.bias, net.fc.weight"]

    def away(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", away)
    with pytest.raises(TrialError, match=r"timm's weights of resnet10t cannot be had here .*no route.*give a file"):
        load_starting_weights(group, spec.backbone, 10)


JOB = "name: a\ndata: {name: digits, image_size: 64}\nbackbone: {name: timm:NAME}\nmethod: METHOD\n"


@pytest.mark.parametrize(
    ("name", "method", "fragments"),
    [
        ("vit_tiny_patch16_224", "ffsd", ("3:18", "no feature maps of several resolutions", "tokens")),
        ("levit_128s", "ffsd", ("3:18", "takes images of one size only, 224×224")),
        ("resnet81", "ffsd", ("3:18", "one of timm's models", "Did you mean `timm:resnet18`?")),
        ("hf-hub", "ffsd", ("3:18", "one of timm's models")),
        ("vgg11", "one", ("3:18", "torch.fx cannot trace it", "branches of one trunk")),
    ],
)
def test_refused_with_the_reason(name: str, method: str, fragments: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("NAME", name).replace("METHOD", method))
    with pytest.raises(JobError) as error:
        load_job(path)
    message = str(error.value)
    assert all(fragment in message for fragment in fragments), message
    assert message.endswith("1 problem")


def test_without_timm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    (path := tmp_path / "job.yaml").write_text(JOB.replace("NAME", "resnet14t").replace("METHOD", "ffsd"))
    with pytest.raises(JobError, match=r'3:18.*\n?.*Needs the package timm: pip install "ffsd-ray\[timm\]"'):
        load_job(path)
