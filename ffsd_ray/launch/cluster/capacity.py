"""Resources that trials request and nodes have: arithmetic without Ray."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ffsd_ray.config.scale import ScaleSettings

#: Amounts by Ray's names: CPU, GPU, memory (bytes), and whatever else a node says it has.
Resources = Mapping[str, float]

GIB = 2**30
#: Ray counts in ten-thousandths.
_SMALLEST = 1e-4


class ResourceRequest(NamedTuple):
    """The resources that a trial reserves: its workers may lie on different nodes, each worker on one."""

    workers: int
    each: Resources

    def __str__(self) -> str:
        each = format_resources(self.each)
        return f"{self.workers} workers of {each} each" if self.workers > 1 else each


class NodeType(NamedTuple):
    """A kind of node that an autoscaler may start, and how many of it."""

    name: str
    resources: Resources
    most: int


class AutoscalerLimits(NamedTuple):
    """The nodes that an autoscaler may add."""

    types: Sequence[NodeType]
    most: float
    """Nodes of all types together."""


NO_AUTOSCALER = AutoscalerLimits((), 0)


def worker_resources(scale: ScaleSettings) -> dict[str, float]:
    """The resources that Ray reserves for one worker."""
    resources: dict[str, float] = {"CPU": scale.cpus}
    if scale.uses_gpu:
        resources["GPU"] = scale.gpu_share
    if scale.memory_per_worker_gib:
        resources["memory"] = int(scale.memory_per_worker_gib * GIB)
    return resources


def resources_of(scale: ScaleSettings) -> ResourceRequest:
    return ResourceRequest(scale.fewest_workers, worker_resources(scale))


def count_fitting(
    nodes: Iterable[Resources], trials: Iterable[ResourceRequest], limits: AutoscalerLimits = NO_AUTOSCALER
) -> int:
    """How many of the trials, taken in this order, the nodes hold together; each worker on the first with room.

    If none has, a node of the type that holds the most such workers is added, as far as `limits` allow.
    """
    free = [dict(node) for node in nodes]
    nodes_left, started = limits.most, Counter[str]()
    count = 0
    for workers, each in trials:
        for _ in range(workers):
            place = next((node for node in free if _fits(each, node)), None)
            if place is None:
                kinds = [
                    kind for kind in limits.types if started[kind.name] < kind.most and _fits(each, kind.resources)
                ]
                if not kinds or nodes_left < 1:
                    return count
                kind = max(kinds, key=lambda kind: _workers_per_node(each, kind.resources))
                started[kind.name] += 1
                nodes_left -= 1
                place = dict(kind.resources)
                free.append(place)
            for name, amount in each.items():
                place[name] -= amount
        count += 1
    return count


def largest(nodes: Mapping[str, Resources]) -> str:
    """The name of the node with the most GPUs, CPUs and memory, in this order, and what it has."""
    name, resources = max(nodes.items(), key=lambda node: [node[1].get(key, 0) for key in ("GPU", "CPU", "memory")])
    return f"{name} with {format_resources({'CPU': 0, 'GPU': 0} | dict(resources))}"


def format_resources(resources: Resources) -> str:
    """CPUs, GPUs and memory in words."""
    amounts = [
        f"{resources[name]:g} {name}{'' if resources[name] == 1 else 's'}"
        for name in ("CPU", "GPU")
        if name in resources
    ]
    if "memory" in resources:
        amounts.append(f"{resources['memory'] / GIB:.1f} GiB of memory")
    return ", ".join(amounts)


def _fits(requested: Resources, node: Resources) -> bool:
    return all(node.get(name, 0) - amount > -_SMALLEST for name, amount in requested.items())


def _workers_per_node(requested: Resources, node: Resources) -> float:
    return min((node.get(name, 0) / amount for name, amount in requested.items() if amount), default=0)
