"""Base of methods that train one network."""

from typing import Any

from torch import Tensor, nn

from ffsd_ray.methods.base import Blueprint, Method, Role


class SingleStudent(Method):
    """A group of one network, the student, which is deployed."""

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.student = blueprint.network()

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {"student": self.features(self.student, images).logits}

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.student]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return "student", self.student

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"student": self.student}

    @property
    def members(self) -> list[str]:
        return ["student"]
