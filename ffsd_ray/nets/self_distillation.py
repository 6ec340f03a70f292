"""The self-distillation module (Section III-C, Fig. 4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class SelfDistillation(nn.Module):
    """Maps a last-stage map [B, C_M, H_M, W_M] to one for every earlier stage.

    One block a stage, from deep to shallow: transposed 3×3 convolution, batch norm, ReLU, with torch's own
    initialisation. Strides follow from the shapes.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        """`shapes`: (C, H, W) of the M feature maps, shallow to deep.

        Raises:
            ValueError: a stage cannot be reached from the one after it by a stride.
        """
        super().__init__()
        deep_to_shallow = list(reversed(shapes))
        self.blocks = nn.ModuleList(
            nn.Sequential(_upsampling(deep, shallow), nn.BatchNorm2d(shallow[0]), nn.ReLU(inplace=True))
            for deep, shallow in pairwise(deep_to_shallow)
        )

    def forward(self, last: Tensor) -> list[Tensor]:
        """Maps of stages 1 to M − 1, shallow to deep."""
        maps = []
        for block in self.blocks:
            last = block(last)
            maps.append(last)
        return maps[::-1]

    @torch.no_grad()
    def targets(self, last: Tensor) -> list[Tensor]:
        """What earlier stages are to mimic: the module in evaluation mode, without gradient (published implementation).

        To be called before the training pass of the same step, which moves the batch-norm statistics used here.
        """
        training = self.training
        self.eval()
        maps = self(last)
        self.train(training)
        return maps


def _upsampling(deep: Shape, shallow: Shape) -> nn.ConvTranspose2d:
    strides, extra = [], []
    for small, large in zip(deep[1:], shallow[1:], strict=True):
        stride = -(-large // small)
        strides.append(stride)
        # A 3×3 kernel with padding 1 gives (small − 1)·stride + 1 entries; the rest is output padding.
        extra.append(large - (small - 1) * stride - 1)
    if any(not 0 <= rest < stride for rest, stride in zip(extra, strides, strict=True)):
        raise ValueError(f"no stride leads from a {deep[1]}×{deep[2]} map to a {shallow[1]}×{shallow[2]} one")
    return nn.ConvTranspose2d(
        deep[0],
        shallow[0],
        3,
        stride=(strides[0], strides[1]),
        padding=1,
        output_padding=(extra[0], extra[1]),
        bias=False,
    )
