"""The ablations of FFSD: each changes exactly the terms it names, and leaves every other as it was."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ffsd_ray.losses import attention, mimic
from ffsd_ray.methods import Losses, Method
from ffsd_ray.methods.ffsd import Ffsd
from ffsd_ray.nets.self_distillation import SelfDistillation
from ffsd_ray.train.build import build_method

from helpers.specs import digits_spec, method_settings

#: What each ablation of the three students' group takes away, by the ends of the terms' names, and what it adds.
MODULES = {"module_attention", "module_feature"}
ABLATIONS: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "diversity none": (
        {"diversity": "none"},
        {
            "student2/diversity_last",
            "student2/diversity_earlier",
            "student3/diversity_last",
            "student3/diversity_earlier",
        }
        | {f"student{i}/{term}" for i in (2, 3) for term in MODULES},
        set(),
    ),
    "L2": (
        {"diversity": "l2", "self_distillation": "none"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_last", "diversity_earlier", *MODULES]}
        | {f"leader/{term}" for term in ["self_distillation", *MODULES]},
        {f"student{i}/diversity_l2" for i in (1, 2, 3)},
    ),
    "L2 with SD": (
        {"diversity": "l2_last"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_last", "diversity_earlier"]},
        {f"student{i}/diversity_l2" for i in (1, 2, 3)} | {f"student{i}/diversity_earlier" for i in (2, 3)},
    ),
    "without self-distillation": (
        {"self_distillation": "none"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_earlier", *MODULES]}
        | {f"leader/{term}" for term in ["self_distillation", *MODULES]},
        set(),
    ),
    "Eq. 9 on every stage, without self-distillation": (
        {"diversity": "attention_all", "self_distillation": "none"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_earlier", *MODULES]}
        | {f"leader/{term}" for term in ["self_distillation", *MODULES]},
        {f"student{i}/diversity_earlier" for i in (2, 3)},
    ),
    "Eq. 9 on every stage, self-distillation for the leader": (
        {"diversity": "attention_all"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_earlier", *MODULES]},
        {f"student{i}/diversity_earlier" for i in (2, 3)},
    ),
    "self-distillation for students": (
        {"self_distillation": "students"},
        {f"leader/{term}" for term in ["self_distillation", *MODULES]},
        set(),
    ),
    "self-distillation for the leader": (
        {"self_distillation": "leader"},
        {f"student{i}/{term}" for i in (2, 3) for term in ["diversity_earlier", *MODULES]},
        set(),
    ),
    "without fusion": (
        {"fusion": False},
        {"fusion/ce", "fusion/kl", "leader/kl", "leader/fused_map", "leader/decoded_map", "leader/self_distillation"}
        | {f"leader/{term}" for term in MODULES},
        {"leader/kl"},
    ),
}


def first_terms(method: dict[str, Any]) -> dict[str, Tensor]:
    losses: Losses = build(method)([images()], torch.arange(16) % 10, "all")
    return losses.terms


def build(method: dict[str, Any]) -> Method:
    group = build_method(digits_spec({"students": 3} | method), 10, 12)
    group.begin_epoch(10)
    return group


def images() -> Tensor:
    return torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("formulation", ["published", "paper"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation(name: str, formulation: str) -> None:
    settings, removed, added = ABLATIONS[name]
    group = build({"name": "ffsd", "formulation": formulation})
    part = build({"name": "ffsd", "formulation": formulation} | settings)
    state = group.state_dict()
    part.load_state_dict({key: state[key] for key in part.state_dict()})
    whole, ablated = (each([images()], torch.arange(16) % 10, "all").terms for each in (group, part))
    assert ablated.keys() == whole.keys() - removed | added
    for term in whole.keys() - removed:
        assert torch.equal(ablated[term], whole[term]), term


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_parameter_of_an_ablated_group_is_trained(name: str) -> None:
    """Nothing is left in the group that no term reaches: DDP would wait for its gradient."""
    group = build({"name": "ffsd"} | ABLATIONS[name][0])
    torch.stack(list(group([images()], torch.arange(16) % 10, "all").terms.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in group.parameters())


@pytest.mark.parametrize("formulation", ["published", "paper"])
def test_diversity_on_every_stage_is_equation_9(formulation: str) -> None:
    """Eqs. 7 to 9 written out; published: â in place of A, the target as it is, the mean of the squared difference."""
    settings = {"diversity": "attention_all", "self_distillation": "none", "lambda_div": 2.0}
    group = build({"name": "ffsd", "formulation": formulation} | settings)
    assert isinstance(group, Ffsd)
    terms = group([images()], torch.arange(16) % 10, "all").terms
    maps = [group.features(student, images()).maps for student in group.students]
    for i in (1, 2):
        total = 0.0
        for m in range(3):
            ours, theirs = (maps[k][m].double().square().mean(dim=1).flatten(1) for k in (i, i - 1))
            norm = theirs.norm(dim=1, keepdim=True)
            looks = theirs / norm if formulation == "published" else theirs
            threshold = looks.sort(dim=1).values[:, looks.shape[1] // 3 - 1, None]
            target = (norm / 2 - looks) * (looks - threshold).sign() + norm / 2
            ours = ours / ours.norm(dim=1, keepdim=True)
            if formulation == "published":
                total += (ours - target).square().mean().item()
            else:
                total += (ours - target / target.norm(dim=1, keepdim=True)).norm(dim=1).mean().item()
        found = terms[f"student{i + 1}/diversity_last"] + terms[f"student{i + 1}/diversity_earlier"]
        assert found.item() == pytest.approx(2.0 * total, rel=1e-4)


def test_either_reading_of_no_self_distillation_is_marked() -> None:
    for changes in ({"self_distillation": "none"}, {"self_distillation": "leader"}, {"diversity": "attention_all"}):
        (choice,) = method_settings("ffsd", **changes).assumptions
        assert "Eq. 9" in choice
    for changes in ({}, {"self_distillation": "students"}, {"diversity": "none"}):
        assert not method_settings("ffsd", **changes).assumptions


def test_l2_diversity_is_equation_6() -> None:
    """Over all pairs and stages, each map normalised per sample; the sum over students is Eq. 6."""
    group = build({"name": "ffsd", "diversity": "l2", "formulation": "paper", "lambda_div": 2.0})
    assert isinstance(group, Ffsd)
    terms = group([images()], torch.arange(16) % 10, "all").terms
    maps = [group.features(student, images()).maps for student in group.students]
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    distances = [mimic(maps[i][m], maps[j][m], "paper") for i, j in pairs for m in range(3)]
    expected = -2.0 * sum(d.item() for d in distances) / 3
    assert sum(terms[f"student{i}/diversity_l2"].item() for i in (1, 2, 3)) == pytest.approx(expected, rel=1e-5)


def test_l2_on_the_last_stage_reaches_earlier_ones_through_the_module() -> None:
    group = build({"name": "ffsd", "diversity": "l2_last", "lambda_div": 2.0})
    assert isinstance(group, Ffsd)
    terms = group([images()], torch.arange(16) % 10, "all").terms
    first, second = (group.features(student, images()).maps for student in list(group.students)[:2])
    fresh = build({"name": "ffsd", "diversity": "l2_last", "lambda_div": 2.0})
    assert isinstance(fresh, Ffsd)
    module = fresh.student_self_distillation[0]
    assert isinstance(module, SelfDistillation)
    earlier = module.targets(first[-1])
    pairs = zip(second[:-1], earlier, strict=True)
    expected = -2.0 * sum(mimic(attention(a), attention(b), "published").item() for a, b in pairs)
    assert terms["student2/diversity_earlier"].item() == pytest.approx(expected, rel=1e-5)


def test_without_fusion_the_leader_learns_from_the_mean_logits() -> None:
    group = build({"name": "ffsd", "fusion": False})
    assert group.members == ["student1", "student2", "student3", "leader"]
    losses = group([images()], torch.arange(16) % 10, "all")
    mean = torch.stack([losses.logits[f"student{i}"] for i in (1, 2, 3)]).mean(dim=0)
    student, target = (torch.log_softmax(z / 2, dim=1) for z in (losses.logits["leader"], mean))
    expected = 4 * (target.exp() * (target - student)).sum(dim=1).mean()
    assert losses.terms["leader/kl"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("formulation", ["published", "paper"])
def test_a_leader_added_to_dml(formulation: str) -> None:
    """Table V: the group's own terms as before; the leader's are FFSD's without diversity and self-distillation."""
    alone = first_terms({"name": "dml", "formulation": formulation})
    led = first_terms({"name": "dml", "leader": True, "formulation": formulation})
    bare = {"name": "ffsd", "diversity": "none", "self_distillation": "none", "formulation": formulation}
    assert {name: led[name] for name in alone} == alone
    assert led == first_terms(bare)
    assert build({"name": "dml", "leader": True}).deployed[0] == "leader"
