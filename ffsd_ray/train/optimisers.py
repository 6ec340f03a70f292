"""Optimisers by role, and learning-rate schedules."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer

from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.methods.base import Method, Role


class Optimisers(NamedTuple):
    """One SGD or AdamW for students and fusion modules, an Adam for each other role; only those with parameters."""

    by_name: dict[str, Optimizer]
    by_role: dict[Role, Optimizer]
    clip_norm: float | None

    def zero_grad(self) -> None:
        for optimiser in self.by_name.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self, roles: Iterable[Role]) -> None:
        """Update the parameters of `roles`. A shared optimiser passes over parameters that have no gradient."""
        optimisers = {id(self.by_role[role]): self.by_role[role] for role in roles}.values()
        if self.clip_norm is not None:
            groups = [group for optimiser in optimisers for group in optimiser.param_groups]
            clip_grad_norm_([parameter for group in groups for parameter in group["params"]], self.clip_norm)
        for optimiser in optimisers:
            optimiser.step()

    def set_learning_rates(self, factor: float) -> None:
        """Every group's learning rate as a multiple of the one it began with."""
        for optimiser in self.by_name.values():
            for group in optimiser.param_groups:
                rate = group["initial_lr"] * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def state(self) -> dict[str, Any]:
        return {name: optimiser.state_dict() for name, optimiser in self.by_name.items()}

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether `state` is of the same optimisers, for as many parameters."""
        sizes = {
            name: [len(group["params"]) for group in optimiser.param_groups] for name, optimiser in self.by_name.items()
        }
        return sizes == {
            name: [len(group["params"]) for group in saved["param_groups"]] for name, saved in state.items()
        }

    def load(self, state: dict[str, Any]) -> None:
        """Momenta and the like of `state`; hyper-parameters stay as they were built."""
        for name, optimiser in self.by_name.items():
            configured = [
                {key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups
            ]
            optimiser.load_state_dict(state[name])
            for group, hyperparameters in zip(optimiser.param_groups, configured, strict=True):
                group.update(hyperparameters)


def build(
    method: Method, settings: TrainSettings, *, fused: bool | None = None, pretrained_factor: float = 1.0
) -> Optimisers:
    """SGD or AdamW for students, leader and fusion, Adam for the self-distillation modules (Section IV-A) and others.

    `fused`, None for "on a GPU": each updates everything in one kernel, and learning rates are tensors that a captured
    step reads. `pretrained_factor`: of the rates of the method's `pretrained` parameters.
    """
    roles = {role: [p for net in nets for p in net.parameters()] for role, nets in method.roles().items()}
    device = next(method.parameters()).device
    fused = device.type == "cuda" if fused is None else fused

    def group(role: Role, lr: float, weight_decay: float) -> dict[str, Any]:
        rate = torch.tensor(lr, device=device) if fused else lr
        return {"params": roles[role], "lr": rate, "initial_lr": lr, "weight_decay": weight_decay}

    decays: dict[Role, float] = {"student": settings.weight_decay, "fusion": settings.fusion_weight_decay}
    groups = [
        part
        for role, decay in decays.items()
        if roles.get(role)
        for part in split_pretrained(group(role, settings.lr, decay), method.pretrained, pretrained_factor)
    ]
    main: Optimizer
    if settings.optimiser == "sgd":
        main = SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov, fused=fused)
    else:
        main = AdamW(groups, settings.lr, fused=fused, capturable=fused)
    by_name: dict[str, Optimizer] = {settings.optimiser: main}
    by_role: dict[Role, Optimizer] = {role: main for role in decays if roles.get(role)}
    if roles.get("self_distillation"):
        modules = group("self_distillation", settings.adam_lr, settings.weight_decay)
        adam = Adam([modules], settings.adam_lr, fused=fused, capturable=fused)
        by_name["adam"] = by_role["self_distillation"] = adam
    for role, rate in method.adam_rates.items():
        by_name[role] = by_role[role] = Adam([group(role, rate, 0.0)], rate, fused=fused, capturable=fused)
    return Optimisers(by_name, by_role, method.clip_norm)


def split_pretrained(
    group: dict[str, Any], pretrained: Iterable[nn.Parameter], factor: float
) -> Iterator[dict[str, Any]]:
    """A parameter group, in two where `factor` is not 1: the others, and those pretrained at `factor` times it."""
    known = {id(parameter) for parameter in pretrained} if factor != 1 else set()
    for own_factor, chosen in ((1.0, False), (factor, True)):
        parameters = [parameter for parameter in group["params"] if (id(parameter) in known) == chosen]
        if parameters:
            rates = {"lr": group["lr"] * own_factor, "initial_lr": group["initial_lr"] * own_factor}
            yield {**group, "params": parameters, **rates}


def learning_rate_factor(settings: TrainSettings, epoch: int, step: int, steps: int) -> float:
    """The factor of every learning rate: epochs from 1, steps of the epoch from 0, `steps` in each epoch.

    A pure function of the position, so that a resumed run needs no scheduler's state.
    """
    rise = settings.warmup_epochs * steps
    done = (epoch - 1) * steps + step + 1
    start = settings.warmup_from
    if settings.schedule == "cosine":
        fallen = max(0, done - 1 - rise) / max(1, settings.epochs * steps - rise)
        factor = (1 + math.cos(math.pi * fallen)) / 2
    else:
        factor = settings.lr_decay ** sum(milestone < epoch for milestone in settings.decay_epochs)
    return factor if done >= rise else factor * (start + (1 - start) * done / rise)


def seed_everything(*parts: int) -> None:
    """Seed torch's global random states (initial weights, dropout) from several integers."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))
