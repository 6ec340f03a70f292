"""Any classifier of torchvision.models whose layers have spatial feature maps, under the name `torchvision:NAME`.

Its feature maps are found, not listed. Of the nodes of its traced graph those are candidates whose output is an image
[B, C, H, W] (or [B, H, W, C], which is permuted) that grows with the input, so that pooling to a fixed size and
squeeze-and-excitation are not among them, and through which every path from the input to the logits leads, so that
the inside of a residual block or a branch is not; nor are maps of class scores and what dropout left of a map. For each
resolution the deepest candidate is taken, and of these the last four. For torchvision:resnet18 they are the ends of its
four stages.

Weights start as torchvision initialises them; auxiliary classifiers are left out. torchvision is imported when a name
is looked up, for it takes seconds.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from ffsd_ray.backbones.base import Builder, Features, UnknownBackbone
from ffsd_ray.meta_device import meta_device

PREFIX = "torchvision:"

#: At most so many feature maps, the deepest ones.
MOST_MAPS = 4

#: Sides of the images that the nodes are told apart with: torchvision's usual one and a larger one.
_SIZES = (224, 288)

#: The number of classes they are told apart with: none has so many channels but maps of class scores.
_CLASSES = 1009

_WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
_ARGUMENTS: dict[str, dict[str, Any]] = {"googlenet": _WITHOUT_AUXILIARY, "inception_v3": _WITHOUT_AUXILIARY}


class _Nodes(NamedTuple):
    """The nodes of a model that hold its feature maps, shallow to deep, whether channels come last, and its logits."""

    maps: tuple[str, ...]
    channels_last: tuple[bool, ...]
    logits: str


@lru_cache
def builder(name: str) -> Builder:
    """The builder of torchvision's model `name`.

    Raises:
        UnknownBackbone: torchvision has no such classifier.
        ValueError: it has no feature maps that could be distilled; the message says why.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownBackbone(
            f"Should be one of torchvision's classifiers, such as {PREFIX}resnet18", [f"{PREFIX}{n}" for n in known]
        )
    nodes = _find_nodes(name)
    if isinstance(nodes, str):
        raise ValueError(f"torchvision's {name} {nodes}")
    return partial(TorchvisionBackbone, name=name, nodes=nodes)


class TorchvisionBackbone(nn.Module):
    """A torchvision classifier for a number of classes, from its traced graph."""

    def __init__(self, classes: int, *, name: str, nodes: _Nodes) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.nodes = nodes
        wanted = {node: node for node in (*nodes.maps, nodes.logits)}
        self.net = create_feature_extractor(_classifier(name, classes), wanted, suppress_diff_warning=True)

    def forward(self, images: Tensor) -> Features:
        found = self.net(images)
        maps = [
            found[node].permute(0, 3, 1, 2) if channels_last else found[node]
            for node, channels_last in zip(self.nodes.maps, self.nodes.channels_last, strict=True)
        ]
        return Features(found[self.nodes.logits], maps)


def _classifier(name: str, classes: int) -> nn.Module:
    from torchvision import models

    build: Callable[[], nn.Module] = partial(
        models.get_model, name, weights=None, num_classes=classes, **_ARGUMENTS.get(name, {})
    )
    try:
        return build()
    except NotImplementedError:  # regnet computes its widths with tensors, which the meta device cannot
        device = torch.get_default_device()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return build().to(device)


@lru_cache
def _find_nodes(name: str) -> _Nodes | str:
    """The nodes, or why there are none."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    with meta_device():
        net = _classifier(name, _CLASSES)
        _, names = get_graph_node_names(net, suppress_diff_warning=True)
        logits = names[-1]
        every = create_feature_extractor(
            net, train_return_nodes=[logits], eval_return_nodes=names, suppress_diff_warning=True
        ).eval()
        small: dict[str, Any] = every(torch.empty(2, 3, _SIZES[0], _SIZES[0]))
        images = {node: image for node, value in small.items() if (image := _image(value))}
        dropouts = {node for node, layer in net.named_modules() if isinstance(layer, nn.Dropout)}
        main_path = [node for node in _main_path(every.graph, small) if node in images and node not in dropouts]
        if len({images[node].side for node in main_path}) < 2:
            return (
                "has no feature maps of several resolutions, which distillation needs: past its first layers its "
                "activations are not images [B, C, H, W] (those of a vision transformer are tokens)"
            )
        try:
            large: dict[str, Any] = every(torch.empty(2, 3, _SIZES[1], _SIZES[1]))
        except (AssertionError, RuntimeError):
            return f"takes images of one size only, {_SIZES[0]}×{_SIZES[0]}"
    deepest: dict[int, str] = {}
    for node in main_path:
        image, grown = images[node], _image(large[node])
        if grown and grown.side > image.side:
            deepest.pop(image.side, None)  # so that the order is that of depth
            deepest[image.side] = node
    maps = tuple(deepest.values())[-MOST_MAPS:]
    return _Nodes(maps, tuple(images[node].channels_last for node in maps), logits)


class _Image(NamedTuple):
    side: int
    channels_last: bool


def _image(value: object) -> _Image | None:
    """How a node's output for two square images holds images, if it does."""
    if not isinstance(value, Tensor) or value.dim() != 4 or len(value) != 2:
        return None
    _, a, b, c = value.shape
    if _CLASSES in (a, c):
        return None
    if b == c > 1:
        return _Image(b, channels_last=False)
    if a == b > 1:
        return _Image(a, channels_last=True)
    return None


def _main_path(graph: fx.Graph, values: dict[str, Any]) -> Iterator[str]:
    """Names of the nodes through which every path from the input to the last node leads, in order.

    `graph` returns every node by its name; `values` are what they computed. Only tensors carry a path on: sizes do not,
    nor does what is computed from parameters alone.
    """
    returned: dict[str, fx.Node] = next(node for node in graph.nodes if node.op == "output").args[0]
    position = {node: index for index, (name, node) in enumerate(returned.items()) if _holds_tensor(values[name])}
    carrying = {node for node in position if node.op == "placeholder"}
    needed_until = 0
    for name, node in returned.items():
        if node not in position or carrying.isdisjoint(node.all_input_nodes):
            continue
        carrying.add(node)
        if needed_until <= position[node]:
            yield name
        needed_until = max([needed_until, *(position[user] for user in node.users if user in position)])


def _holds_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_holds_tensor, value)))
