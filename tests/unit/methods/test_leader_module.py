"""What the leader learns from, and how much: settings that the paper has not."""

import pytest
import torch
from torch import Tensor

from ffsd_ray.losses import soft_kl
from ffsd_ray.methods import Losses
from ffsd_ray.train.build import build_method

from helpers.specs import digits_spec

GROUPS = [{"name": "ffsd"}, {"name": "dml", "leader": True}, {"name": "one", "leader": True}]


def losses(method: dict[str, object], epoch: int = 10) -> Losses:
    """Of a group with the same weights whatever these settings are."""
    group = build_method(digits_spec(method, backbone="resnet8"), 10, 12)
    group.begin_epoch(epoch)
    images = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    found: Losses = group([images], torch.arange(16) % 10, "all")
    return found


def kl(found: Losses, target: Tensor, temperature: float) -> float:
    return soft_kl(found.logits["leader"], target, temperature).item()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["name"])
def test_the_leaders_teacher_and_the_weight_of_its_kl(group: dict[str, object]) -> None:
    as_published = losses(group)
    temperature = 3.0 if group["name"] == "one" else 2.0
    students = [z for name, z in as_published.logits.items() if name.startswith("student")]
    ensemble = kl(as_published, torch.stack(students).mean(dim=0), temperature)
    fusion = kl(as_published, as_published.logits["fusion"], temperature)
    assert abs(ensemble - fusion) > 1e-4
    for settings, expected in (
        ({}, fusion),
        ({"leader_teacher": "ensemble"}, ensemble),
        ({"leader_teacher": "both"}, (ensemble + fusion) / 2),
        ({"leader_kl": 0.25}, 0.25 * fusion),
        ({"leader_kl": 3.0, "leader_teacher": "ensemble"}, 3 * ensemble),
    ):
        found = losses(group | settings)
        assert found.terms["leader/kl"].item() == pytest.approx(expected, rel=1e-5), settings
        assert {k: v for k, v in found.terms.items() if k != "leader/kl"} == {
            k: v for k, v in as_published.terms.items() if k != "leader/kl"
        }


def test_without_fusion_the_teacher_is_the_ensemble() -> None:
    plain = losses({"name": "ffsd", "fusion": False})
    assert losses({"name": "ffsd", "fusion": False, "leader_teacher": "both"}).terms == plain.terms


@pytest.mark.parametrize("method", [{"name": "ffsd"}, {"name": "dml", "students": 3}])
def test_the_students_kl_may_rise(method: dict[str, object]) -> None:
    at_full_weight = losses(method)
    for epoch, factor in ((4, 0.2865047968601901), (8, 1.0), (9, 1.0)):  # exp(−5 (1 − 4/8)²)
        found = losses(method | {"mutual_ramp_epochs": 8}, epoch)
        for name, term in at_full_weight.terms.items():
            if name.endswith("mutual_kl"):
                assert found.terms[name].item() == pytest.approx(factor * term.item(), rel=1e-5), (name, epoch)
            elif name.endswith("/ce"):
                assert found.terms[name].item() == term.item(), name


@pytest.mark.parametrize("method", [{"name": "ffsd"}, {"name": "dml", "students": 3}, {"name": "dml", "leader": True}])
def test_every_network_may_be_given_a_view_of_its_own(method: dict[str, object]) -> None:
    as_published, own, alike = (
        build_method(digits_spec(method | views, backbone="resnet8"), 10, 12)
        for views in ({}, {"views": "own"}, {"views": "own"})
    )
    labels = torch.arange(16) % 10
    views = [torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(own.views)]
    found = own(views, labels, "all")
    for (member, network), view in zip(own.networks.items(), views, strict=True):
        torch.testing.assert_close(found.logits[member], network(view).logits)
    of_one_view = alike(views[:1] * own.views, labels, "all").terms
    for name, term in as_published(views[:1], labels, "all").terms.items():
        torch.testing.assert_close(of_one_view[name], term)
