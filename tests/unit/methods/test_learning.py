"""Who learns from which term: gradients, optimisers, clipping, order of steps, teachers that stay as they are."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from ffsd_ray import data
from ffsd_ray.data.batches import Batch
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.step import Step

from helpers.comparison import assert_equal
from helpers.forms import (
    CLASSES,
    EVERY,
    FORMS,
    group_of,
    spec_of,
)
from helpers.specs import digits_spec

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
    if getattr(method, "leader_module", None) is not None:
        parts |= {"decoder": method.leader_module.decoder, "fusion": method.leader_module.fusion}
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
    # but for batch norm's counters, which `Step` raises together
    found, expected = (
        {name: value for name, value in group.state_dict().items() if not name.endswith("num_batches_tracked")}
        for group in (method, by_hand)
    )
    assert_equal(found, expected)


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
