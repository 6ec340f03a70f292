"""Networks of one shape as one network with stacked weights: few large operations in place of many small ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ffsd_ray.backbones import Features


def forward_grouped(networks: Sequence[nn.Module], images: Tensor) -> list[Features]:
    """What calling each network with `images` gives, gradients and batch-norm statistics included.

    Weights are stacked anew in every call, so each network stays what it is: its own module with its own parameters.
    Dropout draws other numbers than one call after the other would.
    """
    template = networks[0]

    def called(state: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        features = functional_call(template, (state, buffers), (images,))
        return features.logits, features.maps

    parameters = _stacked([dict(network.named_parameters()) for network in networks])
    own = [dict(network.named_buffers()) for network in networks]
    buffers = _stacked(own)
    logits, maps = vmap(called, randomness="different")(parameters, buffers)
    if template.training:
        with torch.no_grad():
            for index, named in enumerate(own):
                for name, buffer in named.items():
                    buffer.copy_(buffers[name][index])
    return [Features(z, [stage[index] for stage in maps]) for index, z in enumerate(logits)]


def _stacked(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
