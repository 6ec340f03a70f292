"""TrivialAugment (Müller & Hutter, ICCV 2021): every image undergoes one of 14 operations, of random strength.

Operations, strengths and pixels are those of torchvision's `TrivialAugmentWide`, which draws once for a whole batch.
Here each image has a draw of its own, a function of its random bits, and a batch is computed at once, on any device,
without waiting for it. What an image becomes depends on neither the device nor the batch: every sum is rounded at the
same places.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.data.counter_rng import random_bits, uniforms

#: In torchvision's order.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip

#: Strengths of an operation.
LEVELS = 31

#: A draw is a number below it: (operation · LEVELS + level) · 2 + (1 for the opposite direction).
DRAWS = len(OPERATIONS) * LEVELS * 2

#: Part of the random bits of an image and view; those of regularisation are −1 and −2.
_PART = -3

#: Of red, green and blue in a pixel's grey value, as float32 holds them.
_GREY = torch.tensor([0.2989, 0.587, 0.114]).tolist()


def operation(draw: int) -> tuple[str, float]:
    """The operation that a draw stands for, and its magnitude as torchvision gives it to that operation."""
    number, level = draw // (2 * LEVELS), draw // 2 % LEVELS
    name, direction = OPERATIONS[number], -1 if draw % 2 else 1
    if name == "Posterize":
        return name, int((8 - torch.arange(LEVELS) / ((LEVELS - 1) / 6)).round()[level])
    if name == "Solarize":
        return name, float(torch.linspace(1.0, 0.0, LEVELS)[level])
    most = {"TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0}.get(name, 0.99)
    return name, direction * float(torch.linspace(0.0, most, LEVELS)[level])


class TrivialAugment:
    """Augments batches of images of one size on a device.

    Holds for every shift, shear and rotation where each pixel comes from: 1.2 kB a pixel, 1.3 MB for images of 32 × 32
    and 62 MB for 224 × 224.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        moved, shades = _moves(size), _shades()
        self._sources = torch.stack([torch.arange(size * size, dtype=torch.int32) + 1, *moved.values()]).to(device)
        numbers = {draw: index for index, draw in enumerate(moved, 1)}
        #: By draw: row of `_sources`, what becomes of each of the 256 shades, number of the operation, and factors.
        self._rows = torch.tensor([numbers.get(draw, 0) for draw in range(DRAWS)]).to(device)
        unchanged = torch.arange(256, dtype=torch.uint8)
        self._shades = torch.stack([shades.get(draw, unchanged) for draw in range(DRAWS)]).to(device)
        self._operations = (torch.arange(DRAWS) // (2 * LEVELS)).to(device)
        magnitudes = torch.tensor([operation(draw)[1] for draw in range(DRAWS)], dtype=torch.float64)
        blended = torch.tensor([OPERATIONS.index(name) for name in ("Color", "Contrast")])
        is_blended = torch.isin(torch.arange(DRAWS) // (2 * LEVELS), blended)
        self._ratios = torch.where(is_blended, 1 + magnitudes, 1.0).float().to(device)
        self._shares = (-magnitudes).float().to(device)

    @staticmethod
    def draws(keys: Tensor) -> Tensor:
        """Draws, one each, by the random bits of images and views: int64 [N, views] to int64 [N, views]."""
        return (uniforms(random_bits(keys, _PART), 1)[..., 0] * DRAWS).long()

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images uint8 [b, 3, S, S], each augmented by its draw, int64 [b]; never waits for the device."""
        number = self._operations[draws][:, None, None, None]
        images = _looked_up(self._shades[draws], self._moved(images, draws))
        for name, adapt in (("AutoContrast", _autocontrast), ("Equalize", _equalize)):
            images = torch.where(number == OPERATIONS.index(name), adapt(images), images)
        return self._blended(images, draws, number)

    def _moved(self, images: Tensor, draws: Tensor) -> Tensor:
        """Gather each pixel from where it comes from; 0, black, is outside of the image."""
        sources = self._sources[self._rows[draws]].long()[:, None].expand(-1, 3, -1)
        return F.pad(images.flatten(2), (1, 0)).gather(2, sources).view_as(images)

    def _blended(self, images: Tensor, draws: Tensor, number: Tensor) -> Tensor:
        """Change colour, contrast and sharpness: add to each image a share of its grey, its mean or its edges."""
        values, grey = images.float(), _grey(images)
        mean = grey.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).float()
        other = torch.zeros_like(values)
        for name, added in (("Color", grey), ("Contrast", mean), ("Sharpness", _blur(values) - values)):
            other = torch.where(number == OPERATIONS.index(name), added, other)
        ratios, shares = (each[draws][:, None, None, None] for each in (self._ratios, self._shares))
        return _multiply_add(values * ratios, shares, other).clamp_(0, 255).to(torch.uint8)


def _moves(size: int) -> dict[int, Tensor]:
    """By draws that move pixels: 1 + the index of the pixel that each comes from, 0 for none; int32 [S · S].

    torchvision itself says so, given an image of such numbers.
    """
    from torchvision.transforms.v2.functional import affine, rotate  # takes seconds; few trials need it

    numbers = torch.arange(1, size * size + 1, dtype=torch.float32).view(1, size, size)
    moves: dict[str, Callable[[float], Tensor]] = {
        "ShearX": lambda m: affine(numbers, 0.0, [0, 0], 1.0, [_degrees(m), 0.0], center=[0, 0]),
        "ShearY": lambda m: affine(numbers, 0.0, [0, 0], 1.0, [0.0, _degrees(m)], center=[0, 0]),
        "TranslateX": lambda m: affine(numbers, 0.0, [int(m), 0], 1.0, [0.0, 0.0]),
        "TranslateY": lambda m: affine(numbers, 0.0, [0, int(m)], 1.0, [0.0, 0.0]),
        "Rotate": lambda m: rotate(numbers, m),
    }
    drawn = ((draw, *operation(draw)) for draw in range(DRAWS))
    return {draw: moves[name](strength).flatten().int() for draw, name, strength in drawn if name in moves}


def _degrees(shear: float) -> float:
    return math.degrees(math.atan(shear))


def _shades() -> dict[int, Tensor]:
    """By draws that change each shade by itself: what becomes of the 256 shades, uint8 [256]."""
    from torchvision.transforms.v2.functional import adjust_brightness, posterize, solarize

    shades = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    changes: dict[str, Callable[[float], Tensor]] = {
        "Brightness": lambda m: adjust_brightness(shades, 1.0 + m),
        "Posterize": lambda m: posterize(shades, int(m)),
        "Solarize": lambda m: solarize(shades, 255.0 * m),
    }
    drawn = ((draw, *operation(draw)) for draw in range(DRAWS))
    return {draw: changes[name](strength).flatten() for draw, name, strength in drawn if name in changes}


def _looked_up(shades: Tensor, images: Tensor) -> Tensor:
    """Replace shades of images [b, 3, S, S] by those in tables [b, 256]."""
    return shades.gather(1, images.flatten(1).long()).view_as(images)


def _autocontrast(images: Tensor) -> Tensor:
    """As torchvision's, which sets values under a mask, for which a captured step cannot wait."""
    values = images.float()
    low, high = values.amin(dim=(2, 3), keepdim=True), values.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return ((values - torch.where(flat, 0.0, low)) / scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import equalize

    equalized: Tensor = equalize(images)
    return equalized


def _grey(images: Tensor) -> Tensor:
    """Grey values of images, rounded down: float32 [b, 1, S, S]."""
    red, green, blue = (channel.float() for channel in images.split(1, dim=1))
    red_factor, green_factor, blue_factor = _GREY
    return _multiply_add(_multiply_add(red * red_factor, green_factor, green), blue_factor, blue).floor_()


def _blur(values: Tensor) -> Tensor:
    """Weighted mean of each pixel (5) and the eight around it (1), rounded; on the border the pixel itself.

    In whole numbers below 2²⁴, which float32 holds; no mean lies between two, for 13 is odd. Images of 2 × 2 have none.
    """
    if values.shape[-1] < 3:
        return values
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    centre = values[..., 1:-1, 1:-1]
    mean = ((rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * centre) / 13).round()
    return values + F.pad(mean - centre, (1, 1, 1, 1))


def _multiply_add(base: Tensor, factor: Tensor | float, other: Tensor) -> Tensor:
    """base + factor · other in float32, rounded once, as torch's vectorised `add` does where a processor can."""
    return (base.double() + factor * other.double()).float()
