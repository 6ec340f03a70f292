"""All methods at once: their losses by hand, who learns from which, stopping, workers, branches and teachers."""

import copy
import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray import data
from ffsd_ray.backbones import BACKBONES, Features, backbone, map_shapes
from ffsd_ray.config.inspection.flops import components
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import SEEDS, TrialSpec
from ffsd_ray.data.batches import Batch, TrainBatches
from ffsd_ray.deployed import Card, pack
from ffsd_ray.errors import JobError, TrialError
from ffsd_ray.methods import METHODS, Blueprint, Method, TrainedOn
from ffsd_ray.methods.kdcl import Kdcl, convex_weights, general_weights
from ffsd_ray.methods.one import One
from ffsd_ray.methods.shared.branch_group import BranchGroup
from ffsd_ray.nets.branches import Branches
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.report.tables.table import result_table
from ffsd_ray.run import main
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.context import LocalContext
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.step import Step
from ffsd_ray.train.trainer import Trainer, train

from helpers.comparison import assert_equal, assert_same_end
from helpers.specs import digits_spec
from helpers.workers import run_workers, train_with

#: Every method that the paper compares with, in every form, as `method` sections.
FORMS: dict[str, dict[str, Any]] = {
    "kd": {"name": "kd"},
    "at": {"name": "at", "teacher": "wrn-16-2"},
    "dml": {"name": "dml", "students": 3},
    "dml+leader": {"name": "dml", "leader": True},
    "afd": {"name": "afd", "students": 3},
    "amln": {"name": "amln", "students": 3},
    "one": {"name": "one"},
    "one+leader": {"name": "one", "leader": True},
    "ffl": {"name": "ffl"},
    "kdcl": {"name": "kdcl", "students": 3},
    "kdcl naive": {"name": "kdcl", "target": "naive"},
    "kdcl linear": {"name": "kdcl", "target": "linear"},
    "kdcl general": {"name": "kdcl", "target": "general", "students": 3},
    "okddip": {"name": "okddip"},
    "okddip networks": {"name": "okddip", "form": "networks", "students": 2},
    "end2": {"name": "end2", "ensemble": 2},
}
KNOWN = {"baseline", "ffsd", *(form["name"] for form in FORMS.values())}
#: Methods that a file more has brought: what is said of every method holds for them, formulas are not known.
ADDED = {name: {"name": name} for name in METHODS if name not in KNOWN}
#: Those that tests train: one of each method but DML, which other tests have, and AT, which is trained as KD is.
TRAINED = ("kd", "afd", "amln", "one+leader", "ffl", "kdcl general", "okddip", "end2", *ADDED)
CLASSES, IMAGES, EPOCH = 10, 8, 31
EVERY = pytest.mark.parametrize("form", FORMS)
EVERY_AND_ADDED = pytest.mark.parametrize("form", FORMS | ADDED)


def spec_of(form: str, **changes: Any) -> TrialSpec:
    return digits_spec((FORMS | ADDED)[form], **({"epochs": 3, "batch_size": 16, "steps_per_epoch": 2} | changes))


def group_of(form: str) -> tuple[Method, list[Tensor], Tensor]:
    """A group in float64 and evaluation mode, in an epoch within every ramp; views of images, labels."""
    method = build_method(spec_of(form), CLASSES, 12).double().eval()
    method.begin_epoch(EPOCH)
    if isinstance(method, One):
        method.gate.weigh[1].bias.data = torch.tensor([-3.0, 0.0, 1.0]).double()
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(IMAGES, 3, 12, 12, generator=generator, dtype=torch.float64) for _ in range(method.views)]
    return method, views, torch.arange(IMAGES) % CLASSES


# (a) the formulas, written out


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
    return {"student/ce": ce(student.logits, y), "student/attention": 1000 * sum(stages)}


def expect_dml(method: Any, views: list[Tensor], y: Tensor) -> dict[str, Tensor]:
    logits = [net(views[0]).logits for net in method.students]
    terms = {}
    for i, own in enumerate(logits):
        others = [kd(own, other, 2) for j, other in enumerate(logits) if j != i]
        terms |= {f"student{i + 1}/ce": ce(own, y), f"student{i + 1}/mutual_kl": sum(others) / len(others)}
    return terms


def expect_leader(method: Any, x: Tensor, y: Tensor, students: list[Features], t: float) -> dict[str, Tensor]:
    """FFSD's terms of leader and fusion module (published), λ_fea = 10 past its warm-up."""
    side = method.leadership
    leader, together = side.leader(x), torch.cat([s.maps[-1] for s in students], 1)
    fused, mean = side.fusion(together), sum(s.logits for s in students) / len(students)
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
    terms = {}
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
    terms = {}
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
    assert {name: METHODS[name].Settings().label() for name in KNOWN} == {
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


def test_a_headline_that_no_member_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, before anything is trained."""
    monkeypatch.setattr(METHODS["dml"].Settings, "primary_series", "student_mean")
    with pytest.raises(TrialError) as raised:
        build_method(spec_of("dml"), CLASSES, 12)
    assert str(raised.value) == (
        "method.name = dml: its headline should be one of student1, student2, student3, students_mean, ensemble_any, "
        "ensemble_logits, and is student_mean"
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
    method = METHODS["end2"].Settings(ensemble=2, hold_epochs=2, anneal_epochs=3)
    group = build_method(digits_spec(method.model_dump()), CLASSES, 12)
    found = []
    for epoch in range(1, 8):
        group.begin_epoch(epoch)
        found.append(float(group.temperature))  # type: ignore[arg-type]
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
    found = dirichlet_nll(z, members, torch.tensor(t, dtype=torch.float64), gamma)
    assert found.item() == pytest.approx(-(t**2) * density.mean().item(), rel=1e-12)


# (b) who learns from which term

#: By form: terms (`*`: each student's) and the parts that they send gradients into (`=`: the student of the term).
GRADIENTS: dict[str, dict[str, str]] = {
    "kd": {"student/ce": "student", "student/kd": "student"},
    "at": {"student/ce": "student", "student/attention": "student"},
    "dml": {"*/ce": "=", "*/mutual_kl": "="},
    "afd": {"*/ce": "=", "*/kd": "=", "*/adversarial": "=", "discriminator?/apart": "discriminator?"},
    "amln": {
        "*/ce": "=",
        "*/kd": "=",
        "*/adversarial": "=",
        "*/container": "= containers?",
        "discriminator?/apart": "discriminator?",
    },
    "one": {"*/ce": "trunk =", "*/kd": "trunk =", "ensemble/ce": "trunk gate student1 student2 student3"},
    "ffl": {
        "*/ce": "trunk =",
        "*/kd": "trunk =",
        "fusion/ce": "trunk student1 student2 fusion",
        "fusion/kd": "trunk student1 student2 fusion",
    },
    **{name: {"*/ce": "=", "*/kd": "="} for name in FORMS if name.startswith("kdcl")},
    "okddip": {
        "*/ce": "trunk =",
        "*/kd": "trunk query key student1 student2 student3",
        "leader/ce": "trunk leader",
        "leader/kd": "trunk leader student1 student2 student3",
    },
    "okddip networks": {
        "*/ce": "=",
        "*/kd": "query key student1 student2",
        "leader/ce": "leader",
        "leader/kd": "leader student1 student2",
    },
    "end2": {"student/dirichlet": "student"},
}
LEADER = {
    "leader/ce": "leader",
    "leader/kl": "leader",
    "leader/fused_map": "leader",
    "leader/decoded_map": "leader decoder",
    "fusion/ce": "fusion",
    "fusion/kl": "fusion",
}
GRADIENTS |= {f"{name}+leader": GRADIENTS[name] | LEADER for name in ("dml", "one")}


def batch_parts(method: Any) -> dict[int, str]:
    """The part that each trained parameter belongs to, by its id."""
    parts: dict[str, nn.Module] = dict(method.networks)
    for name in ("gate", "fusion", "query", "key"):
        if hasattr(method, name):
            parts[name] = getattr(method, name)
    for name in ("discriminator", "containers"):
        every = getattr(method, f"{name.removesuffix('s')}s", [])
        parts |= {f"{name}{index}": module for index, module in enumerate(every, 1)}
    if getattr(method, "leadership", None) is not None:
        parts |= {"decoder": method.leadership.decoder, "fusion": method.leadership.fusion}
    found: dict[int, str] = {}
    for name, module in parts.items():
        for parameter in module.parameters():
            found[id(parameter)] = "trunk" if id(parameter) in found else name
    return found


def wanted_gradients(form: str, students: int) -> dict[str, set[str]]:
    wanted = {}
    for term, into in GRADIENTS[form].items():
        each = range(1, students + 1) if "*" in term or "?" in term else [0]
        for index in each:
            own = into.replace("=", f"student{index}").replace("?", str(index))
            wanted[term.replace("*", f"student{index}").replace("?", str(index))] = set(own.split())
    return wanted


@EVERY
def test_each_term_trains_exactly_its_parts(form: str) -> None:
    method, views, labels = group_of(form)
    method.train()
    parts = batch_parts(method)
    parameters = [p for p in method.parameters() if p.requires_grad]
    assert {id(p) for p in parameters} == set(parts)
    found = {}
    for phase in method.phases:
        for name, term in method(views, labels, phase.name).terms.items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            found[name] = {
                parts[id(p)] for p, g in zip(parameters, gradients, strict=True) if g is not None and g.abs().max() > 0
            }
    assert found == wanted_gradients(form, len(method.common))


#: Of a part: optimiser, learning rate, weight decay; of all others SGD's.
OPTIMISERS = {"fusion": ("SGD", 0.05, 1e-5), "discriminator": ("Adam", 2e-5, 0)}


@EVERY
def test_each_part_has_its_optimiser(form: str) -> None:
    """In AFD's adversarial step the students have an Adam beside their SGD."""
    method = build_method(spec_of(form), CLASSES, 12)
    parts = {parameter: part.rstrip("123") for parameter, part in batch_parts(method).items()}
    found = set()
    for optimiser in optimisers.build(method, spec_of(form).train).by_name.values():
        for group in optimiser.param_groups:
            rates = (type(optimiser).__name__, group["lr"], group["weight_decay"])
            assert rates[0] == "Adam" or (group["momentum"], group["nesterov"]) == (0.9, True)
            found |= {(parts[id(parameter)], *rates) for parameter in group["params"]}
    wanted = {(part, *OPTIMISERS.get(part, ("SGD", 0.05, 1e-4))) for part in parts.values()}
    assert found == wanted | ({("student", "Adam", 2e-5, 0)} if form == "afd" else set())


@pytest.mark.parametrize("weight", [0.01, 1.0])
@pytest.mark.parametrize("clip_norm", [10.0, 2.0, 1e9])
def test_end2_clips_the_gradient_of_the_loss_before_its_weight(clip_norm: float, weight: float) -> None:
    """One step of SGD: weight · (∇L clipped at the norm) + weight decay, with momentum, in float64."""
    _, views, labels = group_of("end2")
    settings = FORMS["end2"] | {"weight": weight, "clip_norm": clip_norm}
    spec = digits_spec(settings, epochs=3, batch_size=16)
    method: Any = build_method(spec, CLASSES, 12).double().eval()
    method.begin_epoch(1)
    students = list(method.student.parameters())
    before = [parameter.detach().clone() for parameter in students]
    unweighted = method(views, labels, "all").terms["student/dirichlet"] / weight
    gradients = torch.autograd.grad(unweighted, students)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert (norm > clip_norm) == (clip_norm < 1e9)
    Step(method, optimisers.build(method, spec.train))(Batch(views, labels, 1.0))
    for parameter, start, gradient in zip(students, before, gradients, strict=True):
        total = weight * gradient * min(1.0, clip_norm / float(norm)) + 1e-4 * start
        stepped = start - spec.train.lr * (1 + 0.9) * total  # Nesterov's first step
        rounding = 1e-4 * float((start - stepped).abs().max())
        torch.testing.assert_close(parameter.detach(), stepped, rtol=0, atol=rounding)


@pytest.mark.thorough
def test_end2_falls_epoch_by_epoch_and_does_not_diverge_where_members_agree() -> None:
    """At T = 1 ever larger concentrations are ever more likely there: without clipping they end in infinities."""
    settings = {"name": "end2", "ensemble": 2, "hold_epochs": 1, "anneal_epochs": 3}
    spec = digits_spec(settings, epochs=8, steps_per_epoch=10, lr=0.5)
    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    for teacher in engine.method.teachers:
        teacher.load_state_dict(engine.method.teachers[0].state_dict())
    losses, temperatures = [], []
    for epoch in range(1, 9):
        engine.begin(epoch)
        meters = engine.meters()
        found = {float(engine.method.temperature) for _ in engine.epoch(epoch, meters)}  # type: ignore[arg-type]
        temperatures.append(found)
        losses.append(meters.terms.read(epoch)["term/student/dirichlet"])
    assert temperatures == [{10.0}, {10.0}, {7.0}, {4.0}, *[{1.0}] * 4]
    assert losses[-1] < losses[4], "both at T = 1"


def test_the_adversarial_step_follows_the_logit_step() -> None:
    """AFD on one batch: SGD on the logit terms, then, at the new weights, Adam for networks and for discriminators."""
    method, views, labels = group_of("afd")
    method.train()
    by_hand: Any = copy.deepcopy(method)
    Step(method, optimisers.build(method, spec_of("afd").train))(Batch(views, labels, 1.0))
    students, judges = (list(module.parameters()) for module in (by_hand.students, by_hand.discriminators))
    sgd = torch.optim.SGD(students, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    adams = [torch.optim.Adam(parameters, 2e-5) for parameters in (students, judges)]
    for phase, steps in (("logit", [sgd]), ("feature", adams)):
        by_hand.zero_grad()
        sum(by_hand(views, labels, phase).terms.values()).backward()
        for optimiser in steps:
            optimiser.step()
    assert_equal(method.state_dict(), by_hand.state_dict())


@EVERY_AND_ADDED
@torch.no_grad()
def test_members_are_who_they_are_called(form: str) -> None:
    """In training and in evaluation the logits under a name are that network's, and so is what is deployed."""
    method, [image, *_], labels = group_of(form)
    views = [image] * method.views
    predicted = method.predict(image)
    assert list(predicted) == method.members
    seen = method(views, labels, method.phases[0].name).logits
    assert seen.keys() == predicted.keys()
    for name, logits in predicted.items():
        torch.testing.assert_close(seen[name], logits, rtol=1e-12, atol=0)
    for name, network in method.networks.items():
        torch.testing.assert_close(predicted[name], network(image).logits, rtol=1e-12, atol=0)
    name, network = method.deployed
    assert network is method.networks[name]
    assert form in ADDED or method.settings.primary_series in {name, "students_mean"}
    assert len({logits.sum().item() for logits in predicted.values()}) == len(predicted)


@pytest.mark.parametrize("form", ["kd", "at", "end2"])
def test_teachers_stay_as_they_are(form: str) -> None:
    """Their batch norms neither learn nor count, in training mode of the group too."""
    method, views, labels = group_of(form)
    method.train()
    before = [{k: v.clone() for k, v in teacher.state_dict().items()} for teacher in method.teachers]
    sum(method(views, labels, "all").terms.values()).backward()
    for teacher, was in zip(method.teachers, before, strict=True):
        assert all(torch.equal(v, was[k]) for k, v in teacher.state_dict().items())
        assert all(p.grad is None for p in teacher.parameters())


# (c) stopped and resumed


@pytest.mark.thorough
@pytest.mark.parametrize("form", TRAINED)
def test_resumed_is_never_stopped(form: str, tmp_path: Path) -> None:
    spec = spec_of(form, batch_size=8)
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", stop_after=1)
    assert stopped.state() == "unfinished"
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
    if form == "kdcl general":
        mixture = whole.latest_checkpoint()["method"]["mixture"]  # type: ignore[index]
        assert not torch.equal(mixture, torch.full((3,), 1 / 3))


# (d) two workers


def _gradients(rank: int, world_size: int, folder: Path) -> None:
    """Of every form, phase by phase; batch norm in evaluation mode, so that a share does not see its own statistics."""
    found: dict[str, list[Tensor | None]] = {}
    for form in FORMS:
        if form == "kdcl linear":  # its weights are a batch's, so a share has its own
            continue
        spec = spec_of(form)
        dataset = data.load(spec.data)
        method = build_method(spec, CLASSES, 12).double().eval()
        method.begin_epoch(EPOCH)
        batches = TrainBatches(
            dataset.train, dataset.mean, dataset.std, crop_padding=2, flip=False, batch_size=9, seed=0,
            rank=rank, world_size=world_size, views=method.views,
        )  # fmt: skip
        batch = next(batches.epoch(1))
        several = len(method.phases) > 1
        group = DistributedDataParallel(method, find_unused_parameters=several) if world_size > 1 else method
        for phase in method.phases:
            method.zero_grad(set_to_none=True)
            terms = group([view.double() for view in batch.views], batch.labels, phase.name).terms
            (sum(terms.values()) * batch.weight).backward()
            found[f"{form}, {phase.name}"] = [p.grad for p in method.parameters()]
    if rank == 0:
        torch.save(found, folder / f"{world_size}.pt")


@pytest.mark.thorough
def test_two_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    _gradients(0, 1, tmp_path)
    run_workers(2, _gradients, tmp_path)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert one.keys() == two.keys()
    assert {"afd, logit", "afd, feature"} <= one.keys()
    for name, gradients in one.items():
        for a, b in zip(gradients, two[name], strict=True):
            if a is None or not a.any():
                assert b is None or not b.any(), name
            else:
                assert (a - b).abs().max() < 1e-6 * max(1.0, a.abs().max().item()), name


class Member(LocalContext):
    """One of several workers."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(torch.device("cpu"))
        self.rank, self.world_size = rank, world_size


def _trained(rank: int, world_size: int, folder: Path) -> None:
    for form in TRAINED:
        spec = TrialSpec.model_validate(
            spec_of(form, epochs=1).model_dump() | {"scale": {"workers": world_size, "threads": 1}}
        )
        trials = folder / form
        for needed in spec.prerequisites():
            train(needed, TrialRecords(Store(str(trials / needed.identity()))), Member(rank, world_size))
        dist.barrier()  # worker 0 writes
        trainer = Trainer(spec, TrialRecords(Store(str(trials / "student"))), Member(rank, world_size), None)
        trainer.run()
        torch.save(list(trainer._method.parameters()), folder / f"{form}-{rank}.pt")


@pytest.mark.thorough
def test_two_workers_hold_the_same_members(tmp_path: Path) -> None:
    """Every method trains on two workers, with which all have the same weights at the end."""
    run_workers(2, _trained, tmp_path)
    for form in TRAINED:
        first, second = (torch.load(tmp_path / f"{form}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), form
        assert TrialRecords(Store(str(tmp_path / form / "student"))).state() == "completed"


# (e) branches

#: In the last two, the trunk reads parameters that no module holds that it calls.
BRANCHED = (*BACKBONES, "torchvision:convnext_tiny", "torchvision:swin_t")
SIZES = dict.fromkeys(("vgg-16", "resnet18", "resnet34", *BRANCHED[-2:]), 32)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (":" in name)) for name in BRANCHED]
)
def test_a_branch_alone_is_the_branch_in_its_group(name: str) -> None:
    torch.manual_seed(0)
    size = SIZES.get(name, 16)
    networks = [backbone(name)(CLASSES) for _ in range(2)]
    group = Branches(networks)
    assert group.training
    images = torch.randn(8, 3, size, size)
    # A step moves the batch norms' statistics, too, of which a deployed branch has the same ones.
    sum(branch.logits.square().mean() for branch in group(images)).backward()
    assert [key for key, p in group.named_parameters() if p.grad is None] == [], "several workers would wait for them"
    torch.optim.SGD(group.parameters(), 1e-3).step()
    group.eval()
    with torch.no_grad():
        together = group(images)
        apart = [network(images) for network in group.networks]
    for branch, alone in zip(together, apart, strict=True):
        assert torch.equal(branch.logits, alone.logits)
        assert all(torch.equal(a, b) for a, b in zip(branch.maps, alone.maps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(together[0].maps[:-1], together[1].maps[:-1], strict=True))
    assert not torch.equal(together[0].logits, together[1].logits)
    whole = sum(p.numel() for p in backbone(name)(CLASSES).parameters())
    assert sum(p.numel() for p in networks[1].parameters()) == whole
    shared = {id(p) for p in networks[0].parameters()} & {id(p) for p in networks[1].parameters()}
    trunk = sum(p.numel() for p in networks[0].parameters() if id(p) in shared)
    assert 0 < trunk < whole
    assert sum(p.numel() for p in group.parameters()) == 2 * whole - trunk


class Dropping(nn.Module):
    """Two stages, the first with a dropout that asks for its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(2))

    def forward(self, images: Tensor) -> Features:
        early = self.first(F.dropout(images, 0.5, self.training))
        late = self.second(early)
        return Features(late.mean(dim=(2, 3)), [early, late])


def test_branches_follow_the_mode_and_later_layers() -> None:
    group, images = Branches([Dropping(), Dropping()]), torch.randn(2, 3, 8, 8)
    assert not torch.equal(group(images)[0].logits, group(images)[0].logits)
    group.eval()
    assert torch.equal(group(images)[0].logits, group(images)[0].logits)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(Branches([Dropping(), Dropping()]))
    called: list[nn.Module] = []
    for module in synchronised.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.register_forward_hook(lambda layer, *_: called.append(layer))
    synchronised(images)
    assert len(called) == 3, "the trunk's once, and each branch's own"


@pytest.mark.parametrize("form", ["one", "ffl", "okddip"])
def test_branches_share_their_batch_norms_where_they_are_synchronised(form: str) -> None:
    """Converted and moved, every branch has the trunk's statistics, not those that it began with."""
    plain = spec_of(form, epochs=1)
    spec = TrialSpec.model_validate(
        plain.model_dump()
        | {"train": plain.train.model_dump() | {"batch_norm": "sync"}, "scale": {"gpus_per_worker": 1, "threads": 1}}
    )
    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    engine.begin(1)
    list(engine.epoch(1, engine.meters()))
    first, *others = engine.method.networks.values()
    assert isinstance(first.bn1, nn.SyncBatchNorm)
    assert first.bn1.running_mean.abs().max() > 0
    for other in others:
        assert other.bn1 is first.bn1
        assert torch.equal(other.bn1.running_mean, first.bn1.running_mean)
    engine.method.eval()
    images = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        predicted = engine.method.predict(images)
        for name, network in engine.method.networks.items():
            torch.testing.assert_close(predicted[name], network(images).logits)


def test_branches_that_are_moved_again_stay_on_one_trunk() -> None:
    """After a first pass too, and constants that the trunk reads (Swin's positions) go along."""
    group = Branches([backbone("torchvision:swin_t")(CLASSES) for _ in range(2)]).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        group(images)
        moved = group.double()(images.double())
        for branch, network in zip(moved, group.networks, strict=True):
            assert torch.equal(branch.logits, network(images.double()).logits)
    one, two = ({id(b) for b in network.buffers()} for network in group.networks)
    assert one & two


@EVERY
def test_costs_of_the_parts(form: str) -> None:
    """A trunk once, a frozen teacher a forward pass; what is deployed is one whole network."""
    spec = spec_of(form)
    method = build_method(spec, CLASSES, 12)
    parts = {part.name: part for part in components(spec.method, "resnet20", CLASSES, 12)}
    [one] = components(METHODS["baseline"].Settings(), "resnet20", CLASSES, 12)
    if isinstance(method, BranchGroup) or form == "okddip":
        trunk, branch = parts["resnet20 trunk"], parts["resnet20 branch"]
        assert (trunk.number, trunk.macs + branch.macs) == (1, one.macs)
        assert branch.number == len(method.networks) - ("leader" in method.networks and form != "okddip")
    else:
        assert parts["resnet20"] == one._replace(number=len(method.networks))
    assert parts.get("teacher", one).number == max(len(method.teachers), 1)
    deployed = sum(p.numel() for p in method.deployed[1].parameters())
    assert deployed == 278324 - 90 * 65


# (f) teachers

JOB = """
name: taught
context: local
data: {name: digits, image_size: 12}
backbone: {name: resnet20}
train: {epochs: 1, batch_size: 16, steps_per_epoch: 2}
seed: [0, 1]
search:
  grid:
    method:
      - {name: kd}
      - {name: at, teacher: resnet32}
      - {name: end2, ensemble: 2}
      - {name: baseline}
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecords, list[TrialSpec]]:
    folder = tmp_path_factory.mktemp("taught")
    (folder / "job.yaml").write_text(JOB)
    plan = load_job(folder / "job.yaml")
    assert main([str(folder / "job.yaml"), "--storage", str(folder / "runs")]) == 0
    return RunRecords.open(str(folder / "runs" / "taught")), list(plan.trials)


@pytest.mark.thorough
def test_teachers_are_trials_trained_once_and_first(taught: tuple[RunRecords, list[TrialSpec]]) -> None:
    """KD's teachers and EnD²'s members are baselines with seeds of their own; the job's own baselines are others."""
    run, specs = taught
    alone = [(s.backbone.name, s.seed_label, s.is_teacher) for s in specs if s.method.name == "baseline"]
    assert sorted(alone) == [
        ("resnet20", "seed 0", False),
        ("resnet20", "seed 0, teacher 1", True),
        ("resnet20", "seed 0, teacher 2", True),
        ("resnet20", "seed 1", False),
        ("resnet20", "seed 1, teacher 1", True),
        ("resnet20", "seed 1, teacher 2", True),
        ("resnet32", "seed 0, teacher 1", True),
        ("resnet32", "seed 1, teacher 1", True),
    ]
    assert len(specs) == 8 + 3 * 2
    ended = {s.identity(): Path(run.trial(s.identity()).store.location, "result.json").stat().st_mtime for s in specs}
    last_teacher = max(ended[teacher.identity()] for s in specs for teacher in s.prerequisites())
    assert all(ended[s.identity()] >= last_teacher for s in specs if s.method.name != "baseline")
    for spec in specs:
        records = run.trial(spec.identity())
        checkpoint = records.latest_checkpoint()
        assert checkpoint is not None
        assert {key.partition(".")[0] for key in checkpoint["method"]} == {"student"}
        teachers = Trainer(spec, records, LocalContext(torch.device("cpu")), None)._method.teachers
        for teacher, needed in zip(teachers, spec.prerequisites(), strict=True):
            weights = load(run.trial(needed.identity()).store.read("model_last.safetensors"))
            assert_equal(dict(teacher.state_dict()), weights)
    last = [run.trial(s.identity()).store.read("model_last.safetensors") for s in specs]
    assert len(set(last)) == len(specs), "a student is not its teacher"


@pytest.mark.parametrize("form", ["kd", "at", *(f"end2 of {m}" for m in (2, 3, 7, 100))])
def test_no_teacher_is_a_trial_of_another_seed(form: str) -> None:
    """Seeds of teachers are never a job's, and no two students of other seeds have a teacher in common."""
    name, _, members = form.partition(" of ")
    method = {"name": name} | ({"ensemble": int(members)} if members else {})
    before: set[int] = set()
    for seed in (*range(40), 2**30, SEEDS - 2, SEEDS - 1):
        seeds = [teacher.seed for teacher in digits_spec(method, seed=seed).prerequisites()]
        assert len(set(seeds)) == len(seeds) == int(members or 1)
        assert min(seeds) >= SEEDS
        assert before.isdisjoint(seeds)
        before.update(seeds)


@pytest.mark.parametrize("name", ["kd", "at", "end2"])
def test_the_largest_seed_has_teachers(name: str, tmp_path: Path) -> None:
    """And the next one is refused, wherever a job says it."""
    job = tmp_path / "job.yaml"
    text = "name: x\ndata: {name: digits, image_size: 12}\nbackbone: {name: resnet20}\n"
    job.write_text(f"{text}method: {{name: {name}}}\nseed: {SEEDS - 1}\n")
    plan = load_job(job)
    assert [spec.seed for spec in plan.trials if not spec.is_teacher] == [SEEDS - 1]
    assert {TrialSpec.model_validate(spec.model_dump()).identity() for spec in plan.trials} >= plan.needed
    for said in (
        f"method: {{name: {name}}}\nseed: {SEEDS}\n",
        f"method: {{name: baseline}}\nseed: [0, {SEEDS}]\n",
        f"method: {{name: baseline}}\nsearch: {{grid: {{seed: [0, {SEEDS}]}}}}\n",
        f"method: {{name: {name}}}\nsearch: {{also: [{{seed: {SEEDS}}}]}}\n",
        f"method: {{name: baseline}}\nsearch: {{also: [{{seed: [{10**15}]}}]}}\n",
    ):
        job.write_text(text + said)
        with pytest.raises(JobError, match=rf"seed = \d+\n  Should be less than {SEEDS}\.\n\n1 problem$"):
            load_job(job)
    with pytest.raises(ValidationError, match=f"Should be less than {SEEDS}"):
        digits_spec({"name": name}, seed=SEEDS)


@pytest.mark.parametrize("method", [{"name": "kd"}, {"name": "at", "teacher": "resnet20"}, FORMS["end2"]], ids=str)
def test_initial_weights_of_teachers_are_others(method: dict[str, Any]) -> None:
    """Also where the teacher's backbone is named and is the student's."""
    spec = digits_spec(method)
    firsts = [next(build_method(s, CLASSES, 12).parameters()) for s in (spec, *spec.prerequisites())]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(firsts, 2))


def test_table_of_taught_methods(taught: tuple[RunRecords, list[TrialSpec]]) -> None:
    table = result_table(taught[0])
    kd_row = next(row for row in table.rows if row.spec.method.name == "kd" and row.epoch == "last")
    assert kd_row.primary_series == "Student"
    assert kd_row.cells["Gain"].mean == pytest.approx(kd_row.cells["Student"].mean - kd_row.cells["Baseline"].mean)
    size = f"{278324 - 90 * 65:,}"
    assert any(f"student of kd ({size})" in caption for caption in table.captions)
    [alone] = [row for row in table.rows if row.spec.method.name == "baseline" and row.epoch == "last"]
    assert (alone.configuration, alone.seeds) == ("baseline", (0, 1)), "those that are in a pair"
    teachers = [taught[0].trial(spec.identity()).result() for spec in taught[1] if spec.backbone.name == "resnet32"]
    mean = fmean(result["last"]["test/student/top1"] for result in teachers)
    [said] = [caption for caption in table.captions if caption.startswith("In no row: teachers and ensemble members")]
    assert f"resnet32 {mean:.2f}" in said
    assert "(n = 4)" in said, "of resnet20"
    for name in ("kd", "end2"):
        row = next(row for row in table.rows if row.spec.method.name == name)
        notes = [table.notes[number - 1] for number in row.notes["configuration"]]
        assert notes == [f"UNCONFIRMED {choice}" for choice in row.spec.method.assumptions]


def test_unconfirmed_choices_are_those_in_force() -> None:
    """KD and AT with a teacher of another backbone, as compared."""
    settings: dict[str, Any] = {name: METHODS[name].Settings() for name in {form["name"] for form in FORMS.values()}}
    assert {name for name, found in settings.items() if not found.assumptions} == {"dml", "at"}
    assert not METHODS["ffsd"].Settings().assumptions
    assert not METHODS["at"].Settings(teacher="wrn-16-2").assumptions
    assert any("branch 1" in choice for choice in settings["one"].assumptions)
    for target in ("min_logit", "general"):
        assert any(f"here {target}" in choice for choice in METHODS["kdcl"].Settings(target=target).assumptions)
    assert any("best epoch" in choice for choice in METHODS["kdcl"].Settings(target="general").assumptions)
    for changes in ({"diversity": "l2"}, {"diversity": "l2_last"}, {"fusion": False}):
        assert METHODS["ffsd"].Settings(**changes).assumptions
    for name in ("dml", "one"):
        found = METHODS[name].Settings(leader=True).assumptions
        assert any(choice.startswith(f"{name.upper()} + leader") for choice in found)
    choices = [choice for found in settings.values() for choice in found.assumptions]
    assert len(set(choices)) == len(choices)


def test_a_resumed_student_needs_its_teacher(tmp_path: Path) -> None:
    """Its own checkpoint has no teacher."""
    spec = spec_of("kd")
    train_with(spec, tmp_path / "student", stop_after=1)
    shutil.rmtree(tmp_path / spec.prerequisites()[0].identity())
    with pytest.raises(TrialError, match="which has not completed"):
        train(spec, TrialRecords(Store(str(tmp_path / "student"))), LocalContext(torch.device("cpu")))


def test_a_teacher_that_failed_is_named(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    text = JOB.replace("{epochs: 1,", "{epochs: 2, lr: 1e+12,").partition("seed:")[0]
    job.write_text(text + "method: {name: kd}\n")
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 1
    run = RunRecords.open(str(tmp_path / "runs" / "taught"))
    student, teacher = load_job(job).trials
    assert "not finite" in run.trial(teacher.identity()).error()["message"]
    message = run.trial(student.identity()).error()["message"]
    assert message == f"this trial needs trial {teacher.identity()} (resnet20), which has not completed"
    assert any(message in note for note in result_table(run).notes)


def test_teacher_from_a_file(taught: tuple[RunRecords, list[TrialSpec]], tmp_path: Path) -> None:
    run, specs = taught
    baseline = next(s for s in specs if s.method.name == "baseline" and s.backbone.name == "resnet20")
    content = run.trial(baseline.identity()).store.read("model_best.safetensors")
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(content)

    def student(**settings: Any) -> TrialSpec:
        return digits_spec({"name": "kd", "teacher_weights": str(file)} | settings, epochs=1, batch_size=16)

    assert student().prerequisites() == ()
    records = train_with(student(), tmp_path / "right")
    [teacher] = Trainer(student(), records, LocalContext(torch.device("cpu")), None)._method.teachers
    assert_equal(dict(teacher.state_dict()), load(content))
    with pytest.raises(
        TrialError, match=r"teacher.safetensors: expected resnet32 for 10 classes, found resnet20 for 10"
    ):
        train_with(student(teacher="resnet32"), tmp_path / "wrong")
    planned = student()
    file.unlink()
    with pytest.raises(TrialError, match=r"method.teacher_weights: .*teacher.*expected a safetensors file"):
        train_with(planned, tmp_path / "missing")


@pytest.mark.parametrize(
    ("teacher", "student", "said"),
    [
        (
            {"classes": list("0123456798")},
            {},
            r"\(0, 1, .*7, 8, 9\), found 0, .*9, 8: class 8 is 9 to the teacher and 8",
        ),
        ({"classes": list("abcdefghij")}, {}, "class 0 is a to the teacher and 0 in the data set"),
        ({}, {"classes": tuple("abcdefghij")}, "class 0 is 0 to the teacher and a in the data set"),
        ({"source": "parquet"}, {"classes": tuple("abcdefghij")}, None),
        ({"classes": list("abcdefghij")}, {"source": "parquet"}, None),
        ({}, {}, None),
    ],
    ids=["other order", "named to the teacher", "named to the student", "no names", "no names here", "the same"],
)
def test_a_teacher_of_other_classes(
    teacher: dict[str, Any], student: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    """Classes are compared by name and order, where both data sets have names."""
    file, dataset = tmp_path / "teacher.safetensors", data.load(spec_of("kd").data)
    _teacher_file(file, dataset, **teacher)
    spec = digits_spec({"name": "kd", "teacher_weights": str(file)})
    known = TrainedOn(
        student.get("source", "digits"), student.get("classes", dataset.classes), dataset.mean, dataset.std
    )
    build = backbone("resnet20")
    method = METHODS["kd"](spec.method, Blueprint(build, map_shapes(build, 12), CLASSES, data=known))
    if said is None:
        method.load_teachers([])
    else:
        with pytest.raises(TrialError, match=said):
            method.load_teachers([])


def test_a_teacher_of_images_normalised_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, dataset = tmp_path / "teacher.safetensors", data.load(spec_of("kd").data)
    for mean, warnings in ((dataset.mean, 0), ((0.5, 0.25, 0.125), 1)):
        _teacher_file(file, dataset, mean=mean)
        spec = digits_spec({"name": "kd", "teacher_weights": str(file)})
        Engine(spec, dataset, torch.device("cpu")).method.load_teachers([])
        assert len(caplog.messages) == warnings
    assert "teacher.safetensors: the teacher was trained on images normalised with mean 0.5000, 0.2500" in caplog.text


def _teacher_file(file: Path, dataset: data.Dataset, source: str = "digits", **changes: Any) -> None:
    """A ResNet-20 as a trial leaves it."""
    card = Card(
        backbone="resnet20", classes=dataset.classes, mean=dataset.mean, std=dataset.std, image_size=12,
        precision="fp32", member="student", epoch=1, split="test", top1=50.0, spec={"data": {"name": source}},
        trial="none",
    )  # fmt: skip
    file.write_bytes(pack(backbone("resnet20")(CLASSES).state_dict(), dataclasses.replace(card, **changes)))


def test_a_teachers_file_counts_by_its_content(
    taught: tuple[RunRecords, list[TrialSpec]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by its path: another content is another trial, also under --resume, and is not taken for the first one."""
    run, specs = taught
    first, second = (
        run.trial(spec.identity()).store.read("model_last.safetensors")
        for spec in specs
        if spec.method.name == "baseline" and spec.backbone.name == "resnet20" and spec.seed < 2
    )
    one, other, job = tmp_path / "one.safetensors", tmp_path / "other.safetensors", tmp_path / "job.yaml"

    def planned(file: Path) -> TrialSpec:
        job.write_text(f"{JOB.partition('seed:')[0]}method: {{name: kd, teacher_weights: {file}}}\n")
        [spec] = load_job(job).trials
        return spec

    one.write_bytes(first)
    other.write_bytes(first)
    before = planned(one)
    assert planned(other).identity() == before.identity()
    assert main([str(job), "--storage", str(tmp_path / "runs")]) == 0
    other.write_bytes(second)
    after = planned(other)
    assert after.identity() != before.identity()
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--resume"]) == 0
    trials = RunRecords.open(str(tmp_path / "runs" / "taught"))
    assert list(trials.trials()) == [after.identity()]
    ends = [trials.trial(spec.identity()).store.read("model_last.safetensors") for spec in (before, after)]
    assert ends[0] != ends[1]
    other.write_bytes(first)  # between the job's loading and the trial's beginning
    with pytest.raises(TrialError, match="expected the file with the SHA-256"):
        train_with(after, tmp_path / "changed")
    assert TrialSpec.model_validate(after.model_dump()) == after, "records are read wherever the file has gone"
    other.unlink()
    capsys.readouterr()
    assert main([str(job), "--storage", str(tmp_path / "runs"), "--resume"]) == 2
    assert "job.yaml:7" in (said := capsys.readouterr().err)
    assert "Should be a weights file that can be read here: no such file" in said
