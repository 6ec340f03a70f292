"""Losses of every method: the formulas of their sources, written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.backbones import Features
from ffsd_ray.errors import TrialError
from ffsd_ray.methods import METHODS
from ffsd_ray.methods.kdcl import Kdcl, convex_weights, general_weights
from ffsd_ray.train.build import build_method

from helpers.forms import CLASSES, EPOCH, EVERY, KNOWN, group_of, spec_of
from helpers.specs import digits_spec, method_settings


def ramp(length: int = 80) -> float:
    """exp(−5 (1 − e/R)²), e from 0."""
    return float(torch.tensor(-5 * (1 - (EPOCH - 1) / length) ** 2, dtype=torch.float64).exp())


def ce(z: Tensor, y: Tensor) -> Tensor:
    return -(z.log_softmax(1)[range(len(y)), y]).mean()


def kd(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """T² · Σ p_t log(p_t / p_s)."""
    p_teacher, p_student = (teacher / t).softmax(1), (student / t).softmax(1)
    return t**2 * (p_teacher * (p_teacher / p_student).log()).sum(1).mean()


def looks(maps: Tensor) -> Tensor:
    """at(F)."""
    found = (maps**2).mean(1).flatten(1)
    return found / (found**2).sum(1, keepdim=True).sqrt()


def expect_kd(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    student, teacher = method.student(views[0]).logits, method.teachers[0](views[0]).logits
    return {"student/ce": 0.1 * ce(student, y), "student/kd": 0.9 * kd(student, teacher, 4)}


def expect_at(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    student, teacher = method.student(views[0]), method.teachers[0](views[0])
    stages = [((looks(a) - looks(b)) ** 2).mean() for a, b in zip(student.maps, teacher.maps, strict=True)]
    return {"student/ce": ce(student.logits, y), "student/attention": 1000 * torch.stack(stages).sum()}


def expect_dml(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    logits = [net(views[0]).logits for net in method.students]
    terms: dict[str, Tensor] = {}
    for i, own in enumerate(logits):
        others = [kd(own, other, 2) for j, other in enumerate(logits) if j != i]
        terms |= {f"student{i + 1}/ce": ce(own, y), f"student{i + 1}/mutual_kl": torch.stack(others).mean()}
    return terms


def expect_leader(method: Any, x: Tensor, y: Tensor, students: list[Features], t: float) -> dict[str, Tensor]:
    """FFSD's terms of leader and fusion module (published), λ_fea = 10 past its warm-up."""
    side = method.leader_module
    leader, together = side.leader(x), torch.cat([s.maps[-1] for s in students], 1)
    fused, mean = side.fusion(together), torch.stack([s.logits for s in students]).mean(0)
    pairs = {"fused_map": (leader.maps[-1], fused.maps[-1]), "decoded_map": (side.decoder(leader.maps[-1]), together)}
    return {
        "leader/ce": ce(leader.logits, y),
        "leader/kl": kd(leader.logits, fused.logits, t),
        **{f"leader/{name}": 10 * ((looks(a) - looks(b)) ** 2).mean() for name, (a, b) in pairs.items()},
        "fusion/ce": ce(fused.logits, y),
        "fusion/kl": kd(fused.logits, mean, t),
    }


def expect_dml_and_leader(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    students = [net(views[0]) for net in method.students]
    return expect_dml(method, views, y) | expect_leader(method, views[0], y, students, 2)


def expect_afd(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = {}
    for i, (net, judge) in enumerate(zip(method.students, method.discriminators, strict=True)):
        own, peer = net(views[0]), method.students[(i + 1) % 3](views[0])
        terms |= {
            f"student{i + 1}/ce": ce(own.logits, y),
            f"student{i + 1}/kd": ramp() * kd(own.logits, peer.logits, 3),
            f"student{i + 1}/adversarial": ((1 - judge(own.maps[-1])) ** 2).mean(),
            f"discriminator{i + 1}/apart": ((1 - judge(peer.maps[-1])) ** 2).mean() + (judge(own.maps[-1]) ** 2).mean(),
        }
    return terms


def expect_amln(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = {}
    for i, net in enumerate(method.students):
        own, peer = net(views[0]), method.students[(i + 1) % 3](views[0])
        judges, containers = method.discriminators[i], method.containers[i]
        moved = [((contain(m) - peer.maps[-1]) ** 2).mean() for contain, m in zip(containers, own.maps, strict=False)]
        assert len(moved) == len(own.maps) - 1
        apart = [
            ((1 - judge(theirs)) ** 2).mean() + (judge(mine) ** 2).mean()
            for judge, theirs, mine in zip(judges, peer.maps, own.maps, strict=True)
        ]
        terms |= {
            f"student{i + 1}/ce": ce(own.logits, y),
            f"student{i + 1}/kd": kd(own.logits, peer.logits, 3),
            f"student{i + 1}/adversarial": 0.1
            * sum(((1 - judge(m)) ** 2).mean() for judge, m in zip(judges, own.maps, strict=True)),
            f"student{i + 1}/container": 0.1 * sum(moved),
            f"discriminator{i + 1}/apart": sum(apart),
        }
    return terms


def expect_one(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    branches = [net(views[0]) for net in method.networks.values()][:3]
    linear, norm = method.gate.weigh[0], method.gate.weigh[1]
    pooled = branches[0].maps[1].mean((2, 3))
    before = pooled @ linear.weight.T + linear.bias
    normed = (before - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    assert (normed < 0).any()
    assert (normed > 0).any()
    g = normed.clamp(min=0).softmax(1)
    mixed = sum(g[:, i, None] * branch.logits for i, branch in enumerate(branches))
    terms = {"ensemble/ce": ce(mixed, y)}
    for i, branch in enumerate(branches, 1):
        terms |= {
            f"student{i}/ce": ce(branch.logits, y),
            f"student{i}/kd": ramp() * kd(branch.logits, mixed, 3),
        }
    return terms


def expect_one_and_leader(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    branches = [method.networks[name](views[0]) for name in method.common]
    return expect_one(method, views, y) | expect_leader(method, views[0], y, branches, 3)


def expect_ffl(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    one, two = (net(views[0]) for net in method.networks.values())
    fused = method.fusion(torch.cat([one.maps[-1], two.maps[-1]], 1)).logits
    return {
        "student1/ce": ce(one.logits, y),
        "student2/ce": ce(two.logits, y),
        "fusion/ce": ce(fused, y),
        "student1/kd": ramp() * kd(one.logits, fused, 3),
        "student2/kd": ramp() * kd(two.logits, fused, 3),
        "fusion/kd": ramp() * kd(fused, (one.logits + two.logits) / 2, 3),
    }


def expect_kdcl(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    z = torch.stack([net(view).logits for net, view in zip(method.students, views, strict=True)])
    rows = range(len(y))
    if method.settings.target == "naive":
        best = torch.stack([F.cross_entropy(own, y, reduction="none") for own in z]).argmin(0)
        target = torch.stack([z[best[b], b] for b in rows])
    elif method.settings.target == "min_logit":
        target = torch.stack([torch.stack([own[b] - own[b, y[b]] for own in z]).min(0).values for b in rows])
    elif method.settings.target == "linear":
        shares = torch.linspace(0, 1, 10001, dtype=torch.float64)
        share = shares[torch.stack([ce(w * z[0] + (1 - w) * z[1], y) for w in shares]).argmin()]
        target = share * z[0] + (1 - share) * z[1]
    else:
        target = sum(w * own for w, own in zip(method.mixture, z, strict=True))
    return {f"student{i}/{name}": term for i, own in enumerate(z, 1)
            for name, term in (("ce", ce(own, y)), ("kd", kd(own, target, 2)))}  # fmt: skip


def expect_okddip(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    *peers, leader = (net(views[0]) for net in method.networks.values())
    h = [peer.maps[-1].mean((2, 3)) for peer in peers]
    q, k = [v @ method.query.weight.T for v in h], [v @ method.key.weight.T for v in h]
    assert method.query.weight.shape == (8, 64)
    terms = {
        "leader/ce": ce(leader.logits, y),
        "leader/kd": ramp() * kd(leader.logits, sum(p.logits for p in peers) / len(peers), 3),
    }
    for i, peer in enumerate(peers):
        a = torch.stack([(q[i] * k_j).sum(1) for k_j in k], 1).softmax(1)
        target = sum(a[:, j, None] * other.logits for j, other in enumerate(peers))
        terms |= {
            f"student{i + 1}/ce": ce(peer.logits, y),
            f"student{i + 1}/kd": ramp() * kd(peer.logits, target, 3),
        }
    return terms


def expect_end2(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    t, gamma = 10, 1e-3
    alpha = (method.student(views[0]).logits / t).exp()
    likelihoods = []
    for member in method.teachers:
        p = (member(views[0]).logits / t).softmax(1)
        p = (1 - gamma) * (p - 1 / CLASSES) + 1 / CLASSES
        # torch's Dirichlet wants p on the simplex, as it is up to rounding
        likelihoods.append(torch.distributions.Dirichlet(alpha, validate_args=False).log_prob(p))
    return {"student/dirichlet": -(t**2) * torch.stack(likelihoods).mean()}


EXPECTED: dict[str, Callable[[Any, list[Tensor], Tensor], dict[str, Tensor]]] = {
    "kd": expect_kd,
    "at": expect_at,
    "dml": expect_dml,
    "dml+leader": expect_dml_and_leader,
    "afd": expect_afd,
    "amln": expect_amln,
    "one": expect_one,
    "one+leader": expect_one_and_leader,
    "ffl": expect_ffl,
    "end2": expect_end2,
    **dict.fromkeys(("kdcl", "kdcl naive", "kdcl linear", "kdcl general"), expect_kdcl),
    **dict.fromkeys(("okddip", "okddip networks"), expect_okddip),
}


@EVERY
@torch.no_grad()
def test_losses_are_the_formulas(form: str) -> None:
    method, views, labels = group_of(form)
    if form == "kdcl general":
        method.fit_on_validation([(views[0], labels), (views[1], labels.flip(0))], lambda sums: sums)
    terms: dict[str, Tensor] = {}
    for phase in method.phases:
        terms |= method(views, labels, phase.name).terms
    expected = EXPECTED[form](method, views, labels)
    assert set(terms) == set(expected)
    tolerance = 1e-3 if form == "kdcl linear" else 1e-11
    for name, value in terms.items():
        assert value.item() == pytest.approx(float(expected[name]), rel=tolerance, abs=1e-13), name
    assert all(abs(value.item()) > 1e-9 for value in terms.values()), "every term says something"


@torch.no_grad()
def test_attention_of_other_sizes_and_numbers_of_maps() -> None:
    """Pairs from the deepest on; the larger map's entries averaged down to the smaller's, before they are squared."""
    spec = digits_spec({"name": "at", "teacher": "resnet18"}, data={"image_size": 32})
    method: Any = build_method(spec, CLASSES, 32).double().eval()
    images, labels = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1])
    student, teacher = method.student(images), method.teachers[0](images)
    assert [m.shape[2] for m in student.maps] == [32, 16, 8]
    assert [m.shape[2] for m in teacher.maps] == [8, 4, 2, 1]

    def smaller(maps: Tensor, side: int) -> Tensor:
        by = maps.shape[2] // side
        return maps.view(*maps.shape[:2], side, by, side, by).mean((3, 5))

    pairs = zip(student.maps, teacher.maps[1:], strict=True)
    stages = [((looks(smaller(a, b.shape[2])) - looks(b)) ** 2).mean() for a, b in pairs]
    term = method([images], labels, "all").terms["student/attention"]
    assert term.item() == pytest.approx(1000 * float(sum(stages)), rel=1e-11)


def test_defaults_are_those_of_the_comparison() -> None:
    """What Table II's job file leaves to the methods: members, target and form. Losses' settings: see the formulas."""
    assert {name: method_settings(name).label() for name in KNOWN} == {
        "baseline": "baseline",
        "kd": "kd",
        "at": "at",
        "dml": "dml n=2",
        "afd": "afd n=2",
        "amln": "amln n=2",
        "one": "one n=3",
        "ffl": "ffl",
        "kdcl": "kdcl min_logit n=2",
        "okddip": "okddip branches n=3",
        "end2": "end2 of 10",
        "ffsd": "ffsd n=2",
    }


def test_a_primary_series_that_no_member_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, before anything is trained."""
    monkeypatch.setattr(METHODS["dml"].Settings, "primary_series", "student_mean")
    with pytest.raises(TrialError) as raised:
        build_method(spec_of("dml"), CLASSES, 12)
    assert str(raised.value) == (
        "method.name = dml: its primary_series should be one of student1, student2, student3, students_mean, "
        "ensemble_any, ensemble_logits, and is student_mean"
    )


def test_kdcl_learns_its_mixture_on_held_out_images() -> None:
    """C of the errors over both batches; a well-conditioned C gives C⁻¹1 / 1ᵀC⁻¹1 up to the ridge."""
    method, views, labels = group_of("kdcl general")
    assert isinstance(method, Kdcl)
    assert torch.equal(method.mixture, torch.full((3,), 1 / 3, dtype=torch.float32).double())
    with torch.no_grad():
        method.fit_on_validation([(views[0], labels), (views[1], labels)], lambda sums: sums)
        images, both = torch.cat([views[0], views[1]]), labels.repeat(2)
        errors = [net(images).logits.softmax(1) - F.one_hot(both, CLASSES) for net in method.students]
    c = torch.tensor([[float((a * b).sum() / len(both)) for a in errors] for b in errors], dtype=torch.float64)
    c += 1e-3 * c.trace() / 3 * torch.eye(3)
    w = torch.linalg.inv(c).sum(1) / torch.linalg.inv(c).sum()
    torch.testing.assert_close(method.mixture, w, rtol=1e-6, atol=0)
    easy = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    wanted = torch.linalg.inv(easy).sum(1) / torch.linalg.inv(easy).sum()
    torch.testing.assert_close(general_weights(easy), wanted, rtol=5e-3, atol=0)


@pytest.mark.parametrize("scale", [0.5, 2, 6])
def test_kdcl_linear_is_near_the_best_mixture(scale: float) -> None:
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (64,))
    z = scale * torch.stack([torch.randn(64, CLASSES) + s * F.one_hot(labels, CLASSES) for s in (2.0, 1.5, 0.2)])
    w = convex_weights(z, labels)
    assert w.min() >= 0
    assert w.sum().item() == pytest.approx(1)
    simplex = [(a / 40, b / 40, 1 - (a + b) / 40) for a in range(41) for b in range(41 - a)]
    best = min(ce(torch.einsum("n,nbk->bk", torch.tensor(point), z), labels).item() for point in simplex)
    assert ce(torch.einsum("n,nbk->bk", w, z), labels).item() <= best + 0.01


def test_end2_temperature_and_large_concentrations() -> None:
    """T held, then linear to 1, epoch by epoch; with concentrations of e^20 the loss still has its digits."""
    method = method_settings("end2", ensemble=2, hold_epochs=2, anneal_epochs=3)
    group = build_method(digits_spec(method.model_dump()), CLASSES, 12)
    found = []
    for epoch in range(1, 8):
        group.begin_epoch(epoch)
        found.append(group.get_buffer("temperature").item())
    assert found == pytest.approx([10, 10, 10, 7, 4, 1, 1])
    from ffsd_ray.methods.end2 import dirichlet_nll

    z = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0)) + 20
    members = torch.randn(2, 4, CLASSES, generator=torch.Generator().manual_seed(1))
    single, double = (
        dirichlet_nll(z.to(d), members.to(d), torch.tensor(1.0), 1e-3) for d in (torch.float32, torch.float64)
    )
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), rel=1e-6)
    z, members, t, gamma = z.double() - 20, members.double(), 2.5, 0.01
    p = (1 - gamma) * ((members / t).softmax(2) - 1 / CLASSES) + 1 / CLASSES
    density = torch.distributions.Dirichlet((z / t).exp(), validate_args=False).log_prob(p)
    loss = dirichlet_nll(z, members, torch.tensor(t, dtype=torch.float64), gamma)
    assert loss.item() == pytest.approx(-(t**2) * density.mean().item(), rel=1e-12)
