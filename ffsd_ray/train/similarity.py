"""Cosine similarity of the common students' last feature maps (Table IV, "Cosine")."""

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor

from ffsd_ray.losses import attention, unit
from ffsd_ray.methods.base import Method
from ffsd_ray.train.distributed import sum_over_workers


def cosines(maps: list[Tensor]) -> Tensor:
    """For each image the cosine between two students' flattened maps, averaged over the pairs: [B, ...] each to [B]."""
    directions = [unit(m) for m in maps]
    return torch.stack([(a * b).sum(dim=1) for a, b in combinations(directions, 2)]).mean(dim=0)


@torch.inference_mode()
def similarity(method: Method, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> dict[str, float]:
    """Mean over all workers' images of `cosines`: of the last feature maps, and of their attention maps (Eq. 7).

    The paper prints a cosine similarity "between the two student models" without saying of what: that it is of the
    flattened last feature maps, image by image over the test images, is UNCONFIRMED. Leaves the method in evaluation
    mode. Nothing where there are fewer than two common students, or they have different backbones.
    """
    networks = [method.networks[name] for name in method.common]
    if len(networks) < 2 or method.settings.other_backbones:
        return {}
    method.eval()
    #: Sums of the two cosines, and the number of images.
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for images, _ in batches:
        maps = [method.features(network, images).maps[-1].double() for network in networks]
        attention_maps = [attention(m) for m in maps]
        sums += torch.stack([cosines(maps).sum(), cosines(attention_maps).sum(), sums.new_tensor(len(images))])
    of_maps, of_attention, count = sum_over_workers(sums).tolist()
    return {"maps": of_maps / count, "attention": of_attention / count}
