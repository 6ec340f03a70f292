"""What makes training images and their labels harder to learn by heart: mixing, erasing, smoothed labels.

Everything is a function of the random bits of an image, as crops are, and computed on the device without waiting for
it. Batched here, with a draw for each image: torchvision's transforms draw once for a whole batch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.data.counter_rng import random_bits, uniforms

#: Share of the image that is erased, and its height : width (Zhong et al., AAAI 2020; torchvision's defaults).
AREA, RATIO = (0.02, 1 / 3), (0.3, 3.3)

#: Uniform numbers that an erased rectangle takes: whether, its area, its ratio, its row and its column.
_ERASING = 5

#: Parts of an image's random bits besides its views', which count from 0.
_MIXING, _ERASED = -1, -2


class Regularisation(NamedTuple):
    """Settings, as in the `train` section; 0 switches each of them off."""

    classes: int
    label_smoothing: float = 0.0
    #: The parameters α of the Beta distributions that shares are drawn from.
    mixup: float = 0.0
    cutmix: float = 0.0
    #: The probability that a view has a rectangle erased.
    random_erasing: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_labels(self) -> bool:
        """Whether labels are probabilities of the classes."""
        return self.mixes or self.label_smoothing > 0

    def mixing_draws(self, keys: Tensor) -> Tensor:
        """Draws of `mixed` for images with these random bits: int64 [N] to float32 [N, 4].

        Share of the image itself; whether a rectangle of the other is put into it (CutMix), or both are added up
        (mixup): each with probability ½ where both are on; the rectangle's centre, row and column in [0, 1).
        """
        from scipy.special import betaincinv  # imported where images are mixed alone

        kind, share, row, column = uniforms(random_bits(keys, _MIXING), 4).unbind(dim=1)
        cut = kind < 0.5 if self.mixup > 0 and self.cutmix > 0 else torch.full_like(kind, self.cutmix > 0).bool()
        alpha = torch.where(cut, self.cutmix, self.mixup).numpy()
        own = torch.from_numpy(betaincinv(alpha, alpha, share.numpy()))
        return torch.stack([own, cut, row, column], dim=1).float()

    def erasing_draws(self, keys: Tensor) -> Tensor:
        """Draws of `erased` by the random bits of images and views: int64 [N, views] to float32 [N, views, 5]."""
        return uniforms(random_bits(keys, _ERASED), _ERASING).float()

    def targets(self, labels: Tensor) -> Tensor:
        """Probabilities of the classes [b, K] from labels [b]: 1 − ε of the label's, and ε shared out among all."""
        certain = F.one_hot(labels, self.classes).float()
        return certain * (1 - self.label_smoothing) + self.label_smoothing / self.classes

    def erased(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images [b, 3, S, S], normalised, some with a rectangle of zeros, by `draws` [b, 5] (`erasing_draws`)."""
        size = images.shape[-1]
        whether, area, ratio, row, column = draws.unbind(dim=1)
        area = (AREA[0] + area * (AREA[1] - AREA[0])) * size**2
        low, high = (math.log(bound) for bound in RATIO)
        aspect = torch.exp(low + ratio * (high - low))
        height, width = ((area * aspect).sqrt().clamp(1, size), (area / aspect).sqrt().clamp(1, size))
        top, left = row * (size - height), column * (size - width)
        rectangle = _rectangle(top, top + height, left, left + width, size)
        return images.masked_fill(rectangle & (whether < self.random_erasing)[:, None, None, None], 0.0)

    def mixed(
        self, views: list[Tensor], labels: Tensor, others: list[Tensor], other_labels: Tensor, draws: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Views [b, 3, S, S] each mixed with those of other images, and targets [b, K] in the shares of both.

        mixup (Zhang et al., ICLR 2018), CutMix (Yun et al., ICCV 2019), by `draws` [b, 4] (`mixing_draws`).
        """
        size = views[0].shape[-1]
        own, cut, row, column = draws.unbind(dim=1)
        half = (1 - own).sqrt() * size / 2
        rectangle = _rectangle(row * size - half, row * size + half, column * size - half, column * size + half, size)
        cuts = cut.bool()
        # In the rectangle, of which a part may lie outside of the image, all is the other's.
        own = torch.where(cuts, 1 - rectangle.float().mean(dim=(1, 2, 3)), own)
        by_pixel = torch.where(cuts[:, None, None, None], (~rectangle).float(), own[:, None, None, None])
        targets = own[:, None] * self.targets(labels) + (1 - own)[:, None] * self.targets(other_labels)
        return [by_pixel * a + (1 - by_pixel) * b for a, b in zip(views, others, strict=True)], targets


def _rectangle(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """Whether a pixel's centre lies between the bounds, in pixels [b] each: bool [b, 1, S, S]."""
    centres = torch.arange(size, device=top.device) + 0.5
    rows = (centres >= top[:, None]) & (centres < bottom[:, None])
    columns = (centres >= left[:, None]) & (centres < right[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
