"""Networks that begin with weights trained before."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file

from ffsd_ray import data
from ffsd_ray.backbones import backbone
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import TrialError
from ffsd_ray.records.trial import MODEL_LAST
from ffsd_ray.train.build import normalised_for
from ffsd_ray.train.engine import Engine

from helpers.comparison import assert_same_end
from helpers.specs import digits_spec
from helpers.workers import train_with


def spec_with(weights: str | Path | None, method: dict[str, Any] | None = None, **settings: Any) -> TrialSpec:
    """A trial whose networks begin with these; read as a job file is, so that the file is hashed."""
    name = settings.pop("name", "resnet8")
    train = settings.pop("train", {})
    spec = digits_spec(method or {"name": "ffsd"}, **train)
    section = {"name": name, **settings} | ({"weights": str(weights)} if weights is not None else {})
    return TrialSpec.model_validate(spec.model_dump() | {"backbone": section})


def state(classes: int, name: str = "resnet8") -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return dict(backbone(name)(classes).state_dict())


def engine_of(spec: TrialSpec) -> Engine:
    return Engine(spec, data.load(spec.data), torch.device("cpu"))


@pytest.mark.parametrize("form", ["safetensors", "torch", "in a checkpoint of DDP"])
def test_every_network_begins_with_them(form: str, tmp_path: Path) -> None:
    weights, file = state(10), tmp_path / "weights"
    if form == "safetensors":
        save_file(weights, file)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}
        torch.save(weights if form == "torch" else wrapped, file)
    engine = engine_of(spec_with(file))
    assert len(engine.method.networks) == 3
    for network in engine.method.networks.values():
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
    assert engine.notes == [f"backbone.weights: {file}: in 3 of 3 networks"]
    plain = engine_of(spec_with(None))
    fusion, random = (each.method.state_dict()["leader_module.fusion.fc.weight"] for each in (engine, plain))
    assert torch.equal(fusion, random), "all else is as without"


def test_the_last_layer_of_other_classes_is_new(tmp_path: Path) -> None:
    weights, file = state(1000), tmp_path / "weights.pt"
    torch.save(weights, file)
    engine, plain = engine_of(spec_with(file, weights_for="deployed")), engine_of(spec_with(None))
    leader, students = engine.method.networks["leader"], [engine.method.networks[f"student{i}"] for i in (1, 2)]
    for name, tensor in leader.state_dict().items():
        of_plain = plain.method.networks["leader"].state_dict()[name]
        assert torch.equal(tensor, of_plain if name.startswith("fc.") else weights[name]), name
    for index, student in enumerate(students, 1):
        for name, tensor in student.state_dict().items():
            assert torch.equal(tensor, plain.method.networks[f"student{index}"].state_dict()[name])
    assert engine.notes == [f"backbone.weights: {file}: in 1 of 3 networks; new, of 10 classes: fc.bias, fc.weight"]


def test_what_is_pretrained_has_a_rate_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(state(1000), file)
    engine = engine_of(spec_with(file, {"name": "dml"}, lr_factor=0.1))
    engine.optimisers.set_learning_rates(0.5)
    rates = {id(p): group["lr"] for group in engine.optimisers.by_name["sgd"].param_groups for p in group["params"]}
    for network in engine.method.networks.values():
        for name, parameter in network.named_parameters():
            assert rates[id(parameter)] == pytest.approx(0.025 if name.startswith("fc.") else 0.0025), name
    assert len(rates) == len(list(engine.method.parameters()))


@pytest.mark.thorough
def test_resumed_is_never_stopped_and_needs_a_trial_once(tmp_path: Path) -> None:
    """From the model that another trial has left."""
    first = train_with(digits_spec({"name": "baseline"}, epochs=1), tmp_path / "first")
    file = Path(first.store.location) / MODEL_LAST
    spec = spec_with(file, lr_factor=0.3, train={"epochs": 3, "ema": 0.9})
    whole = train_with(spec, tmp_path / "whole")
    assert whole.environment()["notes"][-1].startswith(f"backbone.weights: {file}: in 3 of 3")
    train_with(spec, tmp_path / "stopped", stop_after=2)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
    cold = train_with(spec_with(None, train={"epochs": 3, "ema": 0.9}), tmp_path / "cold")
    assert cold.history()[0]["term/leader/ce"] != whole.history()[0]["term/leader/ce"]


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.pt", "same.pt", "other.pt"))
    torch.save(state(10), one)
    same.write_bytes(one.read_bytes())
    torch.save(state(1000), other)
    assert spec_with(one).identity() == spec_with(same).identity() != spec_with(other).identity()
    assert spec_with(one).identity() != spec_with(None).identity()
    assert spec_with(one).identity() != spec_with(one, lr_factor=0.1).identity()
    planned = spec_with(one)
    one.write_bytes(other.read_bytes())
    with pytest.raises(TrialError, match="expected the SHA-256"):
        engine_of(planned)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (state(10, "resnet14"), r"expected the weights of resnet8: unknown layer1\.1\.bn1\.bias"),
        ({name: w for name, w in state(10).items() if "layer2" not in name}, r"no layer2\.0\.bn1\.bias, .* more"),
        (state(10) | {"conv1.weight": torch.zeros(32, 3, 3, 3)}, r"conv1\.weight \[32, 3, 3, 3\] instead of \[16, 3"),
        (state(10) | {"fc.bias": torch.full((10,), torch.nan)}, r"finite ones, found others in fc\.bias"),
        ({"epoch": 3}, "this holds something else"),
        (b"no weights", "expected a safetensors file or a state dictionary"),
    ],
    ids=["deeper", "a part", "wider", "not finite", "numbers", "text"],
)
def test_weights_of_something_else(content: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(TrialError, match=said):
        engine_of(spec_with(file))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18.a1_in1k"])
def test_images_are_normalised_as_a_librarys_own_expect(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    spec = spec_with("default", {"name": "baseline"}, name=name)
    dataset = data.load(spec.data)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = normalised_for(spec, dataset)
    assert (normalised.mean, normalised.std) == (mean, std)
    [note] = normalised.notes[len(dataset.notes) :]
    assert "0.485, 0.456, 0.406 and 0.229, 0.224, 0.225" in note
    random = spec.changed(backbone=spec.backbone.changed(weights=None))
    assert normalised_for(random, dataset) is dataset


@pytest.mark.thorough
def test_torchvisions_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through torchvision's own way to them, with a file in the download's place."""
    torch.manual_seed(3)
    weights = torchvision.models.resnet18().state_dict()
    asked = []

    def from_url(url: str, **_: Any) -> dict[str, torch.Tensor]:
        asked.append(url)
        return dict(weights)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", from_url)
    spec = spec_with("default", {"name": "baseline"}, name="torchvision:resnet18")
    spec = spec.changed(data=spec.data.changed(image_size=32))
    network = engine_of(spec).method.networks["student"].state_dict()
    assert [Path(url).name.split("-")[0] for url in asked] == ["resnet18"]
    assert torch.equal(network["net.conv1.weight"], weights["conv1.weight"])
    assert torch.equal(network["net.layer4.1.bn2.running_var"], weights["layer4.1.bn2.running_var"])
    assert network["net.fc.weight"].shape == (10, 512)

    def away(url: str, **_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", away)
    with pytest.raises(TrialError, match=r"weights of resnet18 cannot be had here .*no route to host.*give a file"):
        engine_of(spec)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "resnet8", "weights": "default"}, "torchvision and timm have weights for their own models"),
        ({"name": "resnet8", "weights": "/nowhere/w.pt"}, "Should be default, or a file that can be read: no such"),
        ({"name": "resnet8", "lr_factor": 0.1}, "Needs weights"),
    ],
)
def test_what_makes_no_sense(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrialSpec.model_validate(digits_spec({"name": "ffsd"}).model_dump() | {"backbone": section})
