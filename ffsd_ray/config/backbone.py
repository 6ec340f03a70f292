"""The network of a trial's students, and the weights that it begins with."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ffsd_ray.backbone_name import BackboneName
from ffsd_ray.backbones import library_model
from ffsd_ray.base_settings import ADDED_LATER, NOT_IDENTITY, Location, Problem, Settings, Sha256, refuse
from ffsd_ray.data.fingerprint import file_sha256


class BackboneSettings(Settings):
    """The network that every student is."""

    name: BackboneName = Field(
        description="A backbone's name, or torchvision:NAME or timm:NAME for a classifier of these libraries that has "
        "spatial feature maps; timm is an extra."
    )
    weights: Location | None = Field(
        None,
        json_schema_extra=ADDED_LATER,
        description="What networks begin with: default, those that torchvision or timm has for its model (downloaded; "
        "images are normalised as they expect, where data.mean and data.std are not given); or a file: safetensors (a "
        "trial's model_best), or a state dictionary saved by torch. Where it is of another number of classes the last "
        "layer is new. null: random weights.",
    )
    weights_sha256: Sha256 | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="SHA-256 of that file, which tells trials apart in place of its path, and which it must still have "
        "when a trial begins; null: as the file is when the job is read.",
    )
    weights_for: Literal["all", "deployed"] = Field(
        "all",
        json_schema_extra=ADDED_LATER,
        description="Which networks begin with them: all, or the leader or first student alone.",
    )
    lr_factor: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, json_schema_extra=ADDED_LATER, description="Of the learning rates of what begins with them."
    )

    @model_validator(mode="after")
    def _weights_can_be_had(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.weights is None:
            for key in ("weights_sha256", "weights_for", "lr_factor"):
                if (value := getattr(self, key)) != type(self).model_fields[key].default:
                    yield Problem((key,), value, "Needs weights: what networks begin with")
        elif self.weights == "default":
            if library_model(self.name) is None:
                expected = "torchvision and timm have weights for their own models, such as torchvision:resnet18; "
                expected += "give a file"
                yield Problem(("weights",), self.weights, expected)
        elif self.weights_sha256 is None:
            try:
                object.__setattr__(self, "weights_sha256", file_sha256(self.weights))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                yield Problem(("weights",), self.weights, f"Should be default, or a file that can be read: {reason}")
