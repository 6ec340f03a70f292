"""Images for timing where no data set is at hand."""

import torch

from ffsd_ray.data import Dataset, Images


def synthetic_data(classes: int, size: int, *, train: int, test: int) -> Dataset:
    """Noise in a data set's shape, the same in every process: a step takes as long on it as on pictures."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        return Images(pixels, torch.randint(classes, (count,), generator=generator))

    names = tuple(str(label) for label in range(classes))
    return Dataset(images(train), None, images(test), names, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
