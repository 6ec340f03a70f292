"""Algorithm 1 taken literally: the reference of speed, and the independent check of the fused step."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.losses import attention, distance, diversity_target, mimic, mutual_kl, soft_kl, unit
from ffsd_ray.methods.ffsd import Ffsd


class LiteralAlgorithm1:
    """Every member and every module has an optimiser and a backward pass of its own, and every term is read at once.

    It trains the networks of a group in place. Learning rates are those of the settings, undecayed.
    """

    def __init__(self, group: Ffsd, settings: TrainSettings) -> None:
        self._group, leader_module = group, group.leader_module
        assert leader_module.decoder is not None
        assert leader_module.fusion is not None
        assert group.leader_self_distillation is not None

        def sgd(parameters: list[torch.nn.Parameter], weight_decay: float) -> SGD:
            return SGD(
                parameters, settings.lr, settings.momentum, weight_decay=weight_decay, nesterov=settings.nesterov
            )

        decay = settings.weight_decay
        self._students = [sgd(list(student.parameters()), decay) for student in group.students]
        self._leader = sgd([*leader_module.leader.parameters(), *leader_module.decoder.parameters()], decay)
        self._fusion = sgd(list(leader_module.fusion.parameters()), settings.fusion_weight_decay)
        self._modules = [
            Adam(module.parameters(), settings.adam_lr, weight_decay=decay)
            for module in [*group.student_self_distillation, group.leader_self_distillation]
        ]

    def step(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, float]:
        """One iteration of Algorithm 1 for images [B, 3, S, S]; every weighted term by name."""
        group, settings = self._group, self._group.settings
        leader_module = group.leader_module
        assert leader_module.decoder is not None
        assert leader_module.fusion is not None
        assert group.leader_self_distillation is not None
        kind, temperature, warmup = settings.formulation, settings.temperature, group.warmup.at(epoch)
        values: dict[str, float] = {}

        # Lines 2 to 6: forward everything.
        students = [group.features(student, images) for student in group.students]
        leader = group.features(leader_module.leader, images)
        concatenated = torch.cat([student.maps[-1] for student in students], dim=1).detach()
        fused = group.features(leader_module.fusion, concatenated)
        logits = [student.logits for student in students]

        # Lines 7 to 10: the common students.
        for index, student in enumerate(students):
            name = f"student{index + 1}"
            terms = {
                f"{name}/ce": F.cross_entropy(student.logits, labels),
                f"{name}/mutual_kl": mutual_kl(logits, index, temperature, kind),
            }
            if index > 0:
                target = diversity_target(students[index - 1].maps[-1], kind)
                earlier = group.student_self_distillation[index - 1].targets(target.maps)  # type: ignore[operator]
                weight = settings.lambda_div * warmup
                last = distance(unit(attention(student.maps[-1])), target.attention, kind)
                terms[f"{name}/diversity_last"] = weight * last
                terms[f"{name}/diversity_earlier"] = weight * _sum_attention(student.maps, earlier, kind)
            _update(self._students[index], terms, values)

        # Line 11: the leader.
        earlier = group.leader_self_distillation.targets(fused.maps[-1].detach())
        decoded = leader_module.decoder(leader.maps[-1])
        fea = settings.lambda_fea * warmup
        terms = {
            "leader/ce": F.cross_entropy(leader.logits, labels),
            "leader/kl": soft_kl(leader.logits, fused.logits, temperature),
        }
        if kind == "published":
            terms["leader/fused_map"] = fea * mimic(attention(leader.maps[-1]), attention(fused.maps[-1]), kind)
            terms["leader/decoded_map"] = fea * mimic(attention(decoded), attention(concatenated), kind)
            terms["leader/self_distillation"] = fea * _sum_attention(leader.maps, earlier, kind)
        else:
            terms["leader/fused_map"] = fea * mimic(leader.maps[-1], fused.maps[-1], kind)
            terms["leader/decoded_map"] = fea * mimic(decoded, concatenated, kind)
            terms["leader/self_distillation"] = settings.lambda_self * warmup * _sum_maps(leader.maps, earlier, kind)
        _update(self._leader, terms, values)

        # Line 12: the fusion module.
        ensemble = torch.stack(logits).mean(dim=0)
        terms = {
            "fusion/ce": F.cross_entropy(fused.logits, labels),
            "fusion/kl": soft_kl(fused.logits, ensemble, temperature),
        }
        _update(self._fusion, terms, values)

        # Lines 13 to 15: the self-distillation modules.
        members = [(f"student{index + 1}", students[index]) for index in range(1, len(students))]
        members.append(("leader", leader))
        modules = [*group.student_self_distillation, group.leader_self_distillation]
        for (name, features), module, optimiser in zip(members, modules, self._modules, strict=True):
            maps = module(features.maps[-1].detach())
            weight = settings.lambda_self * warmup if kind == "published" else 1.0
            terms = {
                f"{name}/module_attention": weight * _sum_attention(maps, features.maps, kind),
                f"{name}/module_feature": weight * settings.alpha * _sum_maps(maps, features.maps, kind),
            }
            _update(optimiser, terms, values)
        return values


def _update(optimiser: Optimizer, terms: dict[str, Tensor], values: dict[str, float]) -> None:
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()
    values.update({name: term.item() for name, term in terms.items()})


def _sum_maps(maps: list[Tensor], targets: list[Tensor], kind: str) -> Tensor:
    """Over the stages that both have: the shallower ones."""
    return torch.stack([mimic(a, b, kind) for a, b in zip(maps, targets, strict=False)]).sum()  # type: ignore[arg-type]


def _sum_attention(maps: list[Tensor], targets: list[Tensor], kind: str) -> Tensor:
    return _sum_maps([attention(m) for m in maps], [attention(t) for t in targets], kind)
