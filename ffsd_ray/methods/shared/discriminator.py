"""Discriminators of feature maps and their least-squares GAN losses, for adversarial distillation (AFD, AMLN)."""

from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Predicts whose feature map it is given, near 1 for the peer's: [B, C, H, W] to probabilities [B].

    3×3 convolution, batch norm, LeakyReLU, 3×3 convolution, sigmoid, mean over positions. Layout UNCONFIRMED.
    """

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
        probabilities: Tensor = self.judge(maps)
        return probabilities.mean(dim=(1, 2, 3))


def generator_loss(discriminator: nn.Module, maps: Tensor) -> Tensor:
    """Least-squares GAN loss of the generator, the network whose maps [B, C, H, W] should be taken for the peer's.

    The discriminator's parameters get no gradient.
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    probabilities: Tensor = functional_call(discriminator, frozen, (maps,))
    return (probabilities - 1).square().mean()


def discriminator_loss(discriminator: nn.Module, peer_maps: Tensor, maps: Tensor) -> Tensor:
    """Least-squares GAN loss of a discriminator: target 1 for `peer_maps`, 0 for the network's `maps`, both detached.

    Two forward passes, not one of both batches together, so that batch norm sees the statistics of `generator_loss`.
    """
    peer_scores: Tensor = discriminator(peer_maps.detach())
    scores: Tensor = discriminator(maps.detach())
    return (peer_scores - 1).square().mean() + scores.square().mean()
