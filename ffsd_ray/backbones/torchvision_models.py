"""Any classifier of torchvision.models whose layers have spatial feature maps, under the name `torchvision:NAME`.

Feature maps are found automatically. A node of the model's traced graph is a candidate if

- its output is a feature map [B, C, H, W] (or [B, H, W, C], which is permuted);
- the map grows with the input image, which excludes pooling to a fixed size and squeeze-and-excitation;
- every path from the input to the logits leads through it, which excludes the inside of residual blocks and branches;
- it is neither a map of class scores nor the output of a dropout layer.

Of these `chosen_maps` are taken. For torchvision:resnet18 they are the ends of its four stages.

Weights are initialised as by torchvision; auxiliary classifiers are left out. torchvision is imported when a name is
first looked up, because that takes seconds.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from ffsd_ray.backbones.base import Builder, Channels, Features, UnknownBackbone
from ffsd_ray.backbones.probing import NO_MAPS, ONE_SIZE, PROBE_CLASSES, PROBE_SIZES, chosen_maps, on_default_device
from ffsd_ray.meta_device import meta_device

NAME = "torchvision"

_NO_AUXILIARY_CLASSIFIERS = {"aux_logits": False, "init_weights": True}
_EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": _NO_AUXILIARY_CLASSIFIERS,
    "inception_v3": _NO_AUXILIARY_CLASSIFIERS,
}


class _FeatureNodes(NamedTuple):
    """Names of the nodes of a model's graph that compute its feature maps and its logits."""

    maps: tuple[str, ...]
    """Shallow to deep."""
    channels_last: tuple[bool, ...]
    """For each map whether it is [B, H, W, C]."""
    logits: str


@lru_cache
def builder(name: str) -> Builder:
    """The builder of torchvision's classification model `name`.

    Raises:
        UnknownBackbone: torchvision has no such classifier.
        ValueError: the model has no feature maps to distil; the message says why.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownBackbone(
            f"Should be one of torchvision's classifiers, such as {NAME}:resnet18", [f"{NAME}:{n}" for n in known]
        )
    nodes = _find_nodes(name)
    if isinstance(nodes, str):
        raise ValueError(f"torchvision's {name} {nodes}")
    return partial(TorchvisionBackbone, name=name, nodes=nodes)


class TorchvisionBackbone(nn.Module):
    """A torchvision classifier whose forward returns `Features`, by torchvision's feature extractor."""

    def __init__(self, classes: int, *, name: str, nodes: _FeatureNodes) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.nodes = nodes
        return_nodes = {node: node for node in (*nodes.maps, nodes.logits)}
        self.net = create_feature_extractor(_classifier(name, classes), return_nodes, suppress_diff_warning=True)

    def forward(self, images: Tensor) -> Features:
        outputs = self.net(images)
        maps = [
            outputs[node].permute(0, 3, 1, 2) if channels_last else outputs[node]
            for node, channels_last in zip(self.nodes.maps, self.nodes.channels_last, strict=True)
        ]
        return Features(outputs[self.nodes.logits], maps)


def _classifier(name: str, classes: int) -> nn.Module:
    """Build torchvision's model `name` with random weights, on the default device."""
    from torchvision import models

    arguments = {"weights": None, "num_classes": classes, **_EXTRA_ARGUMENTS.get(name, {})}
    return on_default_device(partial(models.get_model, name, **arguments))


def default_weights(name: str) -> dict[str, Tensor]:
    """The weights that torchvision has for its model `name`, downloaded once. Raises what torchvision does."""
    from torchvision import models

    weights: dict[str, Tensor] = models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    return weights


def default_normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the images that these weights were trained on."""
    from torchvision import models

    preset = models.get_model_weights(name).DEFAULT.transforms()
    return Channels(*preset.mean), Channels(*preset.std)


@lru_cache
def _find_nodes(name: str) -> _FeatureNodes | str:
    """Find the feature maps and logits of torchvision's model `name` by probing it on the meta device.

    Returns the end of an error message, which says why, if the model has no suitable feature maps.
    """
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    with meta_device():
        net = _classifier(name, PROBE_CLASSES)
        _, names = get_graph_node_names(net, suppress_diff_warning=True)
        logits = names[-1]
        extractor = create_feature_extractor(
            net, train_return_nodes=[logits], eval_return_nodes=names, suppress_diff_warning=True
        ).eval()
        small_outputs: dict[str, Any] = extractor(torch.empty(2, 3, PROBE_SIZES[0], PROBE_SIZES[0]))
        layouts = {node: layout for node, value in small_outputs.items() if (layout := _image_layout(value))}
        dropouts = {node for node, layer in net.named_modules() if isinstance(layer, nn.Dropout)}
        main_path = [
            node for node in _main_path(extractor.graph, small_outputs) if node in layouts and node not in dropouts
        ]
        if len({layouts[node].side for node in main_path}) < 2:
            return NO_MAPS
        try:
            large_outputs: dict[str, Any] = extractor(torch.empty(2, 3, PROBE_SIZES[1], PROBE_SIZES[1]))
        except (AssertionError, RuntimeError):
            return ONE_SIZE
    large_layouts = [_image_layout(large_outputs[node]) for node in main_path]
    chosen = chosen_maps(
        [layouts[node].side for node in main_path], [layout.side if layout else 0 for layout in large_layouts]
    )
    maps = tuple(main_path[index] for index in chosen)
    return _FeatureNodes(maps, tuple(layouts[node].channels_last for node in maps), logits)


class _ImageLayout(NamedTuple):
    """Side in pixels of square feature maps, and whether they are [B, H, W, C] instead of [B, C, H, W]."""

    side: int
    channels_last: bool


def _image_layout(value: object) -> _ImageLayout | None:
    """Side and layout of a node's output for two square images; None if it is no batch of feature maps."""
    if not isinstance(value, Tensor) or value.dim() != 4 or len(value) != 2:
        return None
    _, a, b, c = value.shape
    if PROBE_CLASSES in (a, c):
        return None
    if b == c > 1:
        return _ImageLayout(b, channels_last=False)
    if a == b > 1:
        return _ImageLayout(a, channels_last=True)
    return None


def _main_path(graph: fx.Graph, values: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the nodes through which every path from the input to the last node leads, in order.

    `graph`: returns the outputs of all nodes by name; `values`: those outputs. A path leads through tensors that depend
    on the input only, not through sizes or through tensors that are computed from parameters alone.
    """
    returned: dict[str, fx.Node] = next(node for node in graph.nodes if node.op == "output").args[0]
    position = {node: index for index, (name, node) in enumerate(returned.items()) if _holds_tensor(values[name])}
    dependent = {node for node in position if node.op == "placeholder"}
    needed_until = 0
    for name, node in returned.items():
        if node not in position or dependent.isdisjoint(node.all_input_nodes):
            continue
        dependent.add(node)
        if needed_until <= position[node]:
            yield name
        needed_until = max([needed_until, *(position[user] for user in node.users if user in position)])


def _holds_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_holds_tensor, value)))
