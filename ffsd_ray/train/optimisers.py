"""Which optimiser trains which role, and the learning rates over time."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.optim import SGD, Adam, Optimizer

from ffsd_ray.methods.base import Method, Role
from ffsd_ray.train.settings import TrainSettings


class Optimisers(NamedTuple):
    """One SGD with a parameter group a role, and one Adam; either only where the method has parameters for it."""

    by_name: dict[str, Optimizer]
    of_role: dict[Role, Optimizer]

    def zero_grad(self) -> None:
        for optimiser in self.by_name.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self, roles: Iterable[Role]) -> None:
        """Update the parameters of `roles`. A shared optimiser passes over parameters that have no gradient."""
        for optimiser in {id(self.of_role[role]): self.of_role[role] for role in roles}.values():
            optimiser.step()

    def set_learning_rates(self, factor: float) -> None:
        """Every group's learning rate as a multiple of the one it began with."""
        for optimiser in self.by_name.values():
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * factor


def build(method: Method, settings: TrainSettings) -> Optimisers:
    """SGD for students, leader and fusion module, Adam for the self-distillation modules (Section IV-A)."""
    roles = {role: [p for net in nets for p in net.parameters()] for role, nets in method.roles().items()}
    weight_decay: dict[Role, float] = {"student": settings.weight_decay, "fusion": settings.fusion_weight_decay}
    groups = [
        {"params": roles[role], "weight_decay": decay, "initial_lr": settings.lr}
        for role, decay in weight_decay.items()
        if roles.get(role)
    ]
    sgd = SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov)
    by_name: dict[str, Optimizer] = {"sgd": sgd}
    of_role: dict[Role, Optimizer] = {role: sgd for role in roles if role != "self_distillation"}
    if roles.get("self_distillation"):
        group = {"params": roles["self_distillation"], "initial_lr": settings.adam_lr}
        adam = Adam([group], settings.adam_lr, weight_decay=settings.weight_decay)
        by_name["adam"] = of_role["self_distillation"] = adam
    return Optimisers(by_name, of_role)


def learning_rate_factor(settings: TrainSettings, epoch: int, step: int, steps: int) -> float:
    """What every learning rate is multiplied by: epochs from 1, steps of the epoch from 0, `steps` in each epoch.

    A pure function of the position, so that a resumed run needs no scheduler's state.
    """
    factor = settings.lr_decay ** sum(milestone < epoch for milestone in settings.decay_epochs)
    rise = settings.warmup_epochs * steps
    done = (epoch - 1) * steps + step + 1
    return factor if done >= rise else factor * done / rise


def seed_everything(*parts: int) -> None:
    """Seed torch's global random states (initial weights, dropout) from several integers."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))
