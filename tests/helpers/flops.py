"""Operations of a step where they are known."""

from ffsd_ray.config.inspection import flops
from ffsd_ray.methods import MethodSettings


def flops_per_image(method: MethodSettings, name: str, classes: int, size: int) -> float:
    """Count as the package does; fails where it cannot."""
    counted = flops.flops_per_image(method, name, classes, size)
    assert counted is not None
    return counted
