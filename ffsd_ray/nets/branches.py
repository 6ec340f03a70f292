"""Networks that share all but their last stage: the branches of ONE, FFL and OKDDip."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Self

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ffsd_ray.backbones import Builder, Features
from ffsd_ray.meta_device import meta_device


class _Tracer(fx.Tracer):
    """Enters no batch norm of another library's: its counters are set aside while it runs, and it may be replaced."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


@lru_cache
def can_branch(build: Builder) -> bool:
    """Whether networks of this kind can be `Branches`: whether torch.fx can trace them."""
    with meta_device():
        network = build(10)
    try:
        for mode in (False, True):
            _split_graph(_Tracer().trace(network.train(mode)))
    except Exception:  # whatever a network's own code makes of the tracer's values
        return False
    return True


class Branches(nn.Module):
    """Networks with the same backbone as branches of one trunk, which ends at the second-to-last feature map.

    Works with any backbone that `torch.fx` can trace: its graph is cut behind that map, and the part before the cut is
    shared. Each of `networks` remains a complete network that contains the shared modules, so any one can be deployed.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        #: Graphs of (trunk, tail) by training mode: a traced graph is fixed to the mode in which it was traced.
        self._graphs = {mode: _split_graph(_Tracer().trace(networks[0].train(mode))) for mode in (False, True)}
        #: Modules of the trunk and of every tail, by training mode. In a dict, so that they are not registered: their
        #: parameters are those of `networks`.
        self._trunk_and_tails: dict[bool, tuple[fx.GraphModule, tuple[fx.GraphModule, ...]]] = {}
        self._share_trunk()

    def _share_trunk(self) -> None:
        """Replace the trunk's modules, parameters and buffers in every other network by the first network's."""
        first, *others = self.networks
        for trunk, _ in self._graphs.values():
            for network in others:
                _share_modules(first, network, trunk)
        self._trunk_and_tails.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` (called by `Module.to` and the like), then share the trunk again: it may have copied buffers."""
        super()._apply(fn, recurse)
        self._share_trunk()
        return self

    def forward(self, images: Tensor) -> list[Features]:
        """Features of every branch for images [B, 3, S, S]; all maps but the last are the same tensors."""
        if self.training not in self._trunk_and_tails:
            # Built at the first call, since layers may be replaced after construction (synchronised batch norm).
            trunk_graph, tail_graph = self._graphs[self.training]
            tails = tuple(fx.GraphModule(network, tail_graph) for network in self.networks)
            self._trunk_and_tails[self.training] = fx.GraphModule(self.networks[0], trunk_graph), tails
        trunk, tails = self._trunk_and_tails[self.training]
        at_cut, maps = trunk(images)
        outputs = [tail(*at_cut) for tail in tails]
        return [Features(logits, [*maps, last]) for logits, last in outputs]


def _split_graph(graph: fx.Graph) -> tuple[fx.Graph, fx.Graph]:
    """Cut a backbone's graph behind its second-to-last feature map into trunk and tail.

    The trunk maps images to (tensors that cross the cut, all maps but the last); the tail maps those tensors to
    (logits, last map).
    """
    output = next(iter(reversed(graph.nodes)))
    logits, maps = output.args[0].args
    in_trunk = _ancestors(maps[:-1])
    in_tail = [node for node in graph.nodes if node not in in_trunk and node is not output]
    passing = [node for node in in_trunk if any(user in set(in_tail) for user in node.users)]
    trunk, tail = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in in_trunk:
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(([copies[node] for node in passing], [copies[node] for node in maps[:-1]]))
    copies = {node: tail.placeholder(f"passing_{index}") for index, node in enumerate(passing)}
    for node in in_tail:
        copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.output((copies[logits], copies[maps[-1]]))
    return trunk, tail


def _ancestors(nodes: Sequence[fx.Node]) -> dict[fx.Node, None]:
    """The nodes and all nodes that they are computed from; a dict as an ordered set."""
    ancestors: dict[fx.Node, None] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in ancestors:
            ancestors[node] = None
            waiting += node.all_input_nodes
    return ancestors


def _share_modules(first: nn.Module, other: nn.Module, trunk: fx.Graph) -> None:
    """Put the modules that the trunk calls, and the parameters and buffers that it reads, from `first` into `other`."""
    for node in trunk.nodes:
        if node.op in ("call_module", "get_attr"):
            parent, _, name = str(node.target).rpartition(".")
            setattr(other.get_submodule(parent), name, getattr(first.get_submodule(parent), name))
