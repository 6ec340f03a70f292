"""How other libraries' classifiers are found to have feature maps for distillation: by probing them at two sizes."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

#: Maximum number of feature maps; the deepest ones are taken.
MAX_MAPS = 4

#: Image sides in pixels with which a model is probed: the usual one of ImageNet's models, and a larger one.
PROBE_SIZES = (224, 288)

#: Number of classes of a probed model: a prime, so that only maps of class scores have as many channels.
PROBE_CLASSES = 1009

#: Ends of messages about models that cannot be used.
NO_MAPS = (
    "has no feature maps of several resolutions, which distillation needs: past its first layers its activations are "
    "not images [B, C, H, W] (those of a vision transformer are tokens)"
)
ONE_SIZE = f"takes images of one size only, {PROBE_SIZES[0]}×{PROBE_SIZES[0]}"


def chosen_maps(small: Sequence[int], large: Sequence[int]) -> list[int]:
    """Indices of the feature maps to distil, shallow to deep: the deepest of each resolution, the last `MAX_MAPS`.

    `small`, `large`: sides of the candidates' maps in pixels, by depth, for images of the two `PROBE_SIZES`. Maps that
    do not grow with the image are passed over: those behind pooling to a fixed size.
    """
    deepest: dict[int, int] = {}
    for index, (side, larger) in enumerate(zip(small, large, strict=True)):
        if larger > side:
            deepest.pop(side, None)  # so that the order is that of depth
            deepest[side] = index
    return list(deepest.values())[-MAX_MAPS:]


def on_default_device(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the default device; on the CPU and moved there where it cannot be built on the meta device.

    Some compute their widths or rates with tensors, of which the meta device has no values.
    """
    try:
        return build()
    except RuntimeError:
        device = torch.get_default_device()
        if device.type != "meta":
            raise
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return build().to(device)
