"""Discriminators of feature maps, for the methods that teach through them."""

from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Conv, batch norm, LeakyReLU, conv, sigmoid, averaged over the map: [B, C, H, W] to [B]. Layout UNCONFIRMED."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.judge = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels, 1, 3, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        verdict: Tensor = self.judge(maps)
        return verdict.mean(dim=(1, 2, 3))


def generator_loss(discriminator: nn.Module, own: Tensor) -> Tensor:
    """The least-squares GAN loss of the generator: the network's map should be taken for the peer's."""
    held = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    verdict: Tensor = functional_call(discriminator, held, (own,))
    return (verdict - 1).square().mean()


def discriminator_loss(discriminator: nn.Module, peer: Tensor, own: Tensor) -> Tensor:
    """The least-squares GAN loss of a discriminator: 1 for the peer's map, 0 for the network's own, both detached.

    Each batch by itself, as in `generator_loss`: its batch norm sees the same statistics in both.
    """
    of_peer: Tensor = discriminator(peer.detach())
    of_own: Tensor = discriminator(own.detach())
    return (of_peer - 1).square().mean() + of_own.square().mean()
