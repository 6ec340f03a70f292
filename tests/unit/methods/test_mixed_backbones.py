"""Students with different backbones, which teach each other through their logits (dml, kdcl)."""

from pathlib import Path

import pytest
import torch

from ffsd_ray.config.inspection.flops import components
from ffsd_ray.config.inspection.memory import estimate_memory
from ffsd_ray.config.load import load_job
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import JobError
from ffsd_ray.train.build import build_method

from helpers.flops import flops_per_image
from helpers.specs import digits_spec
from helpers.workers import train_with

BACKBONES = ["resnet8", "wrn-16-2", "resnet14"]
MIXED = {"students": 3, "backbones": BACKBONES}


@pytest.mark.parametrize("method", [{"name": "dml"}, {"name": "kdcl"}])
def test_each_student_has_its_own(method: dict[str, str]) -> None:
    spec = digits_spec(method | MIXED)
    group = build_method(spec, 10, 12)
    alone = [build_method(digits_spec({"name": "baseline"}, backbone=name), 10, 12) for name in BACKBONES]
    sizes = [sum(p.numel() for p in net.parameters()) for net in group.networks.values()]
    assert sizes == [sum(p.numel() for p in net.parameters()) for net in alone]
    assert spec.method.primary_series == group.deployed[0] == "student1"
    assert spec.method.label().endswith("resnet8+wrn-16-2+resnet14")
    assert [part.name for part in components(spec.method, "resnet8", 10, 12)] == BACKBONES
    mixed, same = (flops_per_image(s.method, "resnet8", 10, 12) for s in (spec, digits_spec(method | {"students": 3})))
    assert mixed > 2 * same, "a wide ResNet has ten times the operations"
    more, less = estimate_memory(spec), estimate_memory(digits_spec(method | {"students": 3}))
    assert more is not None
    assert less is not None
    assert more.weights > 2 * less.weights


def test_a_trial_of_them(tmp_path: Path) -> None:
    spec = digits_spec({"name": "dml", "backbones": ["resnet8", "resnet14"]}, epochs=2)
    records = train_with(spec, tmp_path)
    result = records.result()
    assert "similarity" not in result, "of feature maps of equal shapes alone"
    model = load_model(Path(records.store.location) / "model_best.safetensors")
    assert model.card.backbone == "resnet8"
    assert result["best"]["student1"]["top1"] == model.card.top1


def test_without_the_setting_the_same_trial_as_ever() -> None:
    same = digits_spec({"name": "dml", "backbones": ["resnet8", "resnet8"]})
    assert same.method.other_backbones == ()
    torch.manual_seed(0)
    assert digits_spec({"name": "dml", "backbones": None}).identity() == digits_spec({"name": "dml"}).identity()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{name: dml, backbones: [resnet8]}", "Should have 2 items or more"),
        ("{name: dml, backbones: [resnet8, resnet14, resnet8]}", "Should name one for each of the 2 students"),
        ("{name: dml, backbones: [resnet14, resnet8]}", "The first should be the trial's, resnet8"),
        ("{name: kdcl, backbones: [resnet8, resent14]}", "Did you mean `resnet14`"),
        ("{name: dml, leader: true, backbones: [resnet8, resnet14]}", "A leader learns from fused feature maps"),
        ("{name: ffsd, backbones: [resnet8, resnet14]}", "ffsd has no such key (dml, kdcl have it)"),
        ("{name: dml, backbones: [resnet8, vgg-16]}", "Images of 16×16 are too small for this backbone"),
    ],
)
def test_what_is_refused(section: str, said: str, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"name: j\ndata: digits\nbackbone: resnet8\nmethod: {section}\n")
    with pytest.raises(JobError) as refused:
        load_job(job)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{job}:4:")
