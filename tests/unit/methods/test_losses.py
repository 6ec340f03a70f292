"""Losses against golden values of the published implementation, and against the equations written out."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ffsd_ray.losses import attention, distance, diversity_target, mimic, mimic_each, mutual_kl, soft_kl, unit
from ffsd_ray.methods.ffsd import FfsdSettings
from ffsd_ray.methods.shared.leader_module import warmup
from ffsd_ray.methods.shared.rampup import Ramp

from helpers.paths import GOLDEN

CARRIED = GOLDEN / "ffsd_published_losses.json"


def tensor(values: list[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(params=["carried", "whole"])
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The extract that the tests carry, and the whole file where it is present."""
    file = CARRIED if request.param == "carried" else request.getfixturevalue("shared") / "golden" / CARRIED.name
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def diversity(student: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    target = diversity_target(previous, "published")
    return distance(unit(attention(student)), target.attention, "published")


PIECES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "diversity_last_stage": diversity,
    "attention_mimic": lambda a, b: mimic(attention(a), attention(b), "published"),
    "feature_mimic": lambda a, b: mimic(a, b, "published"),
}


@pytest.mark.parametrize("piece", PIECES)
def test_published_pieces_and_gradients(golden: dict[str, Any], piece: str) -> None:
    for case in golden["cases"]:
        student = tensor(case["features_student"]).requires_grad_()
        value = PIECES[piece](student, tensor(case["features_previous"]))
        value.backward()
        assert value.item() == pytest.approx(case[piece]["value"], abs=1e-9, rel=0)
        torch.testing.assert_close(student.grad, tensor(case[piece]["grad_features_student"]), atol=1e-9, rtol=0)


def test_diversity_target_maps(golden: dict[str, Any]) -> None:
    for case in golden["cases"]:
        for formulation in ("published", "paper"):  # the paper gives no formula for them
            maps = diversity_target(tensor(case["features_previous"]), formulation).maps
            torch.testing.assert_close(maps, tensor(case["diversity_target_features"]), atol=1e-9, rtol=0)


def test_soft_kl(golden: dict[str, Any]) -> None:
    case = golden["kl_T2"]
    student = tensor(case["student_logits"]).requires_grad_()
    value = soft_kl(student, tensor(case["target_logits"]), case["temperature"])
    value.backward()
    assert value.item() == pytest.approx(case["value_times_T_squared"], abs=1e-9, rel=0)
    torch.testing.assert_close(student.grad, tensor(case["grad_student_logits"]), atol=1e-9, rtol=0)


def test_warmup(golden: dict[str, Any]) -> None:
    published, paper = (warmup(FfsdSettings(), kind) for kind in ("published", "paper"))
    for epoch, factor in golden["lambda_warmup_factor_by_epoch_from_1"]:
        assert published.at(epoch) == pytest.approx(factor, abs=1e-12)
        assert paper.at(epoch) == 1
    assert warmup(FfsdSettings(warmup_epochs=0), "published").at(1) == 1
    assert Ramp(80, first=0).at(1) == math.exp(-5)


def test_paper_distance_is_the_equations() -> None:
    """Eqs. 8 and 9 for one sample, entry by entry."""
    torch.manual_seed(0)
    student, previous = torch.randn(1, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 3, 3, dtype=torch.float64)
    a = [sum(previous[0, c].flatten()[k].item() ** 2 for c in range(3)) for k in range(9)]
    norm = math.sqrt(sum(v * v for v in a))
    threshold = sorted(a)[2]
    shifted = [(norm / 2 - v) * ((v > threshold) - (v < threshold)) + norm / 2 for v in a]
    b = [sum(student[0, c].flatten()[k].item() ** 2 for c in range(3)) for k in range(9)]
    length = math.sqrt(sum(v * v for v in shifted)), math.sqrt(sum(v * v for v in b))
    expected = math.sqrt(sum((v / length[1] - w / length[0]) ** 2 for v, w in zip(b, shifted, strict=True)))
    target = diversity_target(previous, "paper")
    assert distance(unit(attention(student)), target.attention, "paper").item() == pytest.approx(expected, abs=1e-12)


def test_paper_distance_averages_samples_not_entries() -> None:
    a, b = torch.eye(2, dtype=torch.float64), torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    assert distance(a, b, "paper").item() == pytest.approx(math.sqrt(2) / 2)
    assert distance(a, b, "published").item() == pytest.approx(0.5)


def test_paper_distance_has_a_gradient_where_it_is_zero() -> None:
    maps = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    mimic(maps, maps.detach().clone(), "paper").backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_mutual_kl_sums_or_averages_over_peers() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    pairs = [soft_kl(logits[1], logits[j], 2.0) for j in (0, 2, 3)]
    assert mutual_kl(logits, 1, 2.0, "paper").item() == pytest.approx(sum(p.item() for p in pairs), abs=1e-12)
    assert mutual_kl(logits, 1, 2.0, "published").item() == pytest.approx(sum(p.item() for p in pairs) / 3, abs=1e-12)
    mutual_kl(logits, 1, 2.0, "published").backward()
    assert [z.grad is not None for z in logits] == [False, True, False, False]


@pytest.mark.parametrize("of", [attention, None])
def test_what_is_mimicked_together_is_mimicked_one_by_one(of: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    """Values and gradients to the bit, for maps of two shapes of which some are in several pairs and one is zero;
    and a distance by itself sends its gradient to its own maps alone."""
    torch.manual_seed(0)
    a, b, c, d = (torch.randn(2, 3, 4, 4).requires_grad_() for _ in range(4))
    e, f = (torch.randn(2, 5, 2, 2, requires_grad=True) for _ in range(2))
    with torch.no_grad():
        a[0] = 0
    pairs = [(a, b), (c, d), (e, f), (b, a)]
    together = mimic_each(pairs, "published", of)
    one_by_one = [mimic(a, b, "published") if of is None else mimic(of(a), of(b), "published") for a, b in pairs]
    found, expected = (
        [*values, *torch.autograd.grad(torch.stack(values).sum(), [a, b, c, e], retain_graph=True)]
        for values in (together, one_by_one)
    )
    assert all(map(torch.equal, found, expected))
    alone = torch.autograd.grad(together[1], [a, b, c, d, e, f], allow_unused=True)
    assert [gradient is not None for gradient in alone] == [False, False, True, False, False, False]


def test_gradients_written_out_are_those_of_the_functions() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, maps)
    assert torch.autograd.gradcheck(unit, maps)


def test_threshold_needs_three_entries() -> None:
    with pytest.raises(ValueError, match="3 entries or more, got 1×2"):
        diversity_target(torch.rand(2, 4, 1, 2), "published")
