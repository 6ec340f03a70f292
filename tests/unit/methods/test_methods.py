"""All methods at once: members, costs, stopping and resuming, workers, and what no source confirms."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray import data
from ffsd_ray.config.inspection.flops import components
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.methods.shared.branch_group import BranchGroup
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.train.build import build_method
from ffsd_ray.train.context import LocalContext
from ffsd_ray.train.trainer import Trainer, train

from helpers.comparison import assert_same_end, latest_state
from helpers.forms import ADDED, CLASSES, EPOCH, EVERY, EVERY_AND_ADDED, FORMS, TRAINED, group_of, spec_of
from helpers.specs import method_settings
from helpers.tiers import often
from helpers.workers import run_workers, train_with


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


@pytest.mark.thorough
@pytest.mark.parametrize("form", often(("afd", "kdcl general", *ADDED), TRAINED, others="slow"))
def test_resumed_is_never_stopped(form: str, tmp_path: Path) -> None:
    spec = spec_of(form, batch_size=8)
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", stop_after=1)
    assert stopped.state() == "unfinished"
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))
    if form == "kdcl general":
        mixture = latest_state(whole)["method"]["mixture"]
        assert not torch.equal(mixture, torch.full((3,), 1 / 3))


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.thorough
def test_two_workers_hold_the_same_members(tmp_path: Path) -> None:
    """Every method trains on two workers, with which all have the same weights at the end."""
    run_workers(2, _trained, tmp_path)
    for form in TRAINED:
        first, second = (torch.load(tmp_path / f"{form}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), form
        assert TrialRecords(Store(str(tmp_path / form / "student"))).state() == "completed"


@EVERY
def test_costs_of_the_parts(form: str) -> None:
    """A trunk once, a frozen teacher a forward pass; what is deployed is one whole network."""
    spec = spec_of(form)
    method = build_method(spec, CLASSES, 12)
    parts = {part.name: part for part in components(spec.method, "resnet8", CLASSES, 12)}
    [one] = components(method_settings("baseline"), "resnet8", CLASSES, 12)
    if isinstance(method, BranchGroup) or form == "okddip":
        trunk, branch = parts["resnet8 trunk"], parts["resnet8 branch"]
        assert (trunk.number, trunk.macs + branch.macs) == (1, one.macs)
        assert branch.number == len(method.networks) - ("leader" in method.networks and form != "okddip")
    else:
        assert parts["resnet8"] == one._replace(number=len(method.networks))
    assert parts.get("teacher", one).number == max(len(method.teachers), 1)
    deployed = sum(p.numel() for p in method.deployed[1].parameters())
    assert deployed == 78042


def test_assumptions_are_those_in_force() -> None:
    """KD and AT with a teacher of another backbone, as compared."""
    settings: dict[str, Any] = {name: method_settings(name) for name in {form["name"] for form in FORMS.values()}}
    assert {name for name, found in settings.items() if not found.assumptions} == {"dml", "at"}
    assert not method_settings("ffsd").assumptions
    assert not method_settings("at", teacher="wrn-16-2").assumptions
    assert any("branch 1" in choice for choice in settings["one"].assumptions)
    for target in ("min_logit", "general"):
        assert any(f"here {target}" in choice for choice in method_settings("kdcl", target=target).assumptions)
    assert any("best epoch" in choice for choice in method_settings("kdcl", target="general").assumptions)
    for changes in ({"diversity": "l2"}, {"diversity": "l2_last"}, {"fusion": False}):
        assert method_settings("ffsd", **changes).assumptions
    for name in ("dml", "one"):
        found = method_settings(name, leader=True).assumptions
        assert any(choice.startswith(f"{name.upper()} + leader") for choice in found)
    choices = [choice for found in settings.values() for choice in found.assumptions]
    assert len(set(choices)) == len(choices)
