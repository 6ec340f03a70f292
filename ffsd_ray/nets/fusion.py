"""The feature fusion module and the leader's decoder (Section III-B, Fig. 3; sizes as published)."""

from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """Depthwise 3×3 and pointwise 1×1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Fusion(nn.Module):
    """The fusion module: encodes the students' concatenated last maps F_e [B, n·C, H, W] as F_f [B, C, H, W].

    Returns class scores [B, K] of the pooled F_f, and F_f as the only feature map.
    """

    def __init__(self, students: int, channels: int, classes: int) -> None:
        super().__init__()
        self.encode = _separable(students * channels, channels)
        self.fc = nn.Linear(channels, classes)
        initialise_convolutions(self)

    def forward(self, concatenated: Tensor) -> Features:
        fused = self.encode(concatenated)
        return Features(self.fc(fused.mean(dim=(2, 3))), [fused])


class Decoder(nn.Module):
    """The decoder σ of Eq. 5: maps the leader's last map [B, C, H, W] to the shape of F_e [B, n·C, H, W]."""

    def __init__(self, students: int, channels: int) -> None:
        super().__init__()
        self.decode = _separable(channels, students * channels)
        initialise_convolutions(self)

    def forward(self, maps: Tensor) -> Tensor:
        decoded: Tensor = self.decode(maps)
        return decoded
