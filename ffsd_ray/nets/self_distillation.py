"""The self-distillation module (Section III-C, Fig. 4)."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class SelfDistillation(nn.Module):
    """Predicts the feature maps of all earlier stages from a map of the last stage [B, C_M, H_M, W_M].

    One block for each stage, from deep to shallow: transposed 3×3 convolution, batch norm, ReLU, with torch's default
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
            nn.Sequential(_upsampling_convolution(deep, shallow), nn.BatchNorm2d(shallow[0]), nn.ReLU(inplace=True))
            for deep, shallow in pairwise(deep_to_shallow)
        )

    def forward(self, last: Tensor) -> list[Tensor]:
        """Predicted maps [B, C, H, W] of stages 1 to M − 1, shallow to deep, from the last map."""
        maps = []
        for block in self.blocks:
            last = block(last)
            maps.append(last)
        return maps[::-1]

    @contextlib.contextmanager
    def for_targets(self) -> Iterator[None]:
        """Evaluation mode without gradient, in which the module gives targets (published implementation).

        Before the training pass of the same step, which updates the batch-norm statistics used here.
        """
        training = self.training
        self.eval()
        with torch.no_grad():
            yield
        self.train(training)

    def targets(self, last: Tensor) -> list[Tensor]:
        """Target maps for stages 1 to M − 1, see `for_targets`."""
        with self.for_targets():
            maps: list[Tensor] = self(last)
        return maps


def check_shapes(shapes: Sequence[Shape]) -> None:
    """Check that a module can be built for maps of these shapes (C, H, W), shallow to deep.

    Raises:
        ValueError: a stage cannot be reached from the one after it by a stride.
    """
    for shallow, deep in pairwise(shapes):
        _convolution_arguments(deep, shallow)


def _convolution_arguments(deep: Shape, shallow: Shape) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(stride, padding, output padding) of the transposed convolution, for height and for width.

    Raises:
        ValueError: no stride leads from the deep map's size to the shallow one's.
    """
    rows, columns = _axis_arguments(deep[1], shallow[1]), _axis_arguments(deep[2], shallow[2])
    if rows is None or columns is None:
        raise ValueError(f"no stride leads from a {deep[1]}×{deep[2]} map to a {shallow[1]}×{shallow[2]} one")
    return rows, columns


def _upsampling_convolution(deep: Shape, shallow: Shape) -> nn.ConvTranspose2d:
    stride, padding, output_padding = zip(*_convolution_arguments(deep, shallow), strict=True)
    return nn.ConvTranspose2d(deep[0], shallow[0], 3, stride, padding, output_padding, bias=False)


def _axis_arguments(small: int, large: int) -> tuple[int, int, int] | None:
    """(stride, padding, output padding) with which a kernel of size 3 maps `small` entries to `large`, or None.

    Padding is 1 as published, or 0 where the backbone's own downsampling dropped the border, as in 55 → 27.
    """
    for padding in (1, 0):
        stride = max(1, -(-(large - 2 + 2 * padding) // small))
        output_padding = large - ((small - 1) * stride + 3 - 2 * padding)
        if 0 <= output_padding < stride:
            return stride, padding, output_padding
    return None
