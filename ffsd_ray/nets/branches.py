"""Networks that share all but their last stage: the branches of ONE, FFL and OKDDip."""

from collections.abc import Callable, Sequence
from typing import Self

from torch import Tensor, fx, nn

from ffsd_ray.backbones import Features


class Branches(nn.Module):
    """Several networks of one kind as branches on one trunk, which ends with the last feature map but one.

    Any backbone will do: its traced graph is cut behind that map, and what the cut leaves before is shared. Each of
    `networks` stays a whole network (with the shared modules in it), so that one branch can be deployed as it is.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        #: Trunk and tail in training mode and in evaluation, of which a traced network keeps the one it was traced in.
        self._cuts = {mode: _cut(fx.Tracer().trace(networks[0].train(mode))) for mode in (False, True)}
        #: Not registered: their parameters have their names already.
        self._parts: dict[bool, tuple[fx.GraphModule, tuple[fx.GraphModule, ...]]] = {}
        self._share_trunk()

    def _share_trunk(self) -> None:
        """The first network's trunk is every network's."""
        first, *others = self.networks
        for trunk, _ in self._cuts.values():
            for network in others:
                _share(first, network, trunk)
        self._parts.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Override what `to` calls. Each network gets buffers of its own, as converting to synchronised batch norm
        does layers."""
        super()._apply(fn, recurse)
        self._share_trunk()
        return self

    def forward(self, images: Tensor) -> list[Features]:
        """Features of every branch; all feature maps but the last are shared."""
        if self.training not in self._parts:
            # Not before, for layers may have been replaced (synchronised batch norm).
            trunk_graph, tail_graph = self._cuts[self.training]
            tails = tuple(fx.GraphModule(network, tail_graph) for network in self.networks)
            self._parts[self.training] = fx.GraphModule(self.networks[0], trunk_graph), tails
        trunk, tails = self._parts[self.training]
        between, maps = trunk(images)
        ends = [tail(*between) for tail in tails]
        return [Features(logits, [*maps, last]) for logits, last in ends]


def _cut(graph: fx.Graph) -> tuple[fx.Graph, fx.Graph]:
    """Two graphs: images to (what passes the cut, all maps but the last); that to (logits, last map)."""
    output = next(iter(reversed(graph.nodes)))
    logits, maps = output.args[0].args
    before = _ancestors(maps[:-1])
    after = [node for node in graph.nodes if node not in before and node is not output]
    passing = [node for node in before if any(user in set(after) for user in node.users)]
    trunk, tail = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in before:
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(([copies[node] for node in passing], [copies[node] for node in maps[:-1]]))
    copies = {node: tail.placeholder(f"passing_{index}") for index, node in enumerate(passing)}
    for node in after:
        copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.output((copies[logits], copies[maps[-1]]))
    return trunk, tail


def _ancestors(nodes: Sequence[fx.Node]) -> dict[fx.Node, None]:
    """The nodes and everything that they come from."""
    found: dict[fx.Node, None] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += node.all_input_nodes
    return found


def _share(first: nn.Module, other: nn.Module, trunk: fx.Graph) -> None:
    """Put the modules of `first` that the trunk calls, and the parameters and buffers it reads, into `other` too."""
    for node in trunk.nodes:
        if node.op in ("call_module", "get_attr"):
            parent, _, name = str(node.target).rpartition(".")
            setattr(other.get_submodule(parent), name, getattr(first.get_submodule(parent), name))
