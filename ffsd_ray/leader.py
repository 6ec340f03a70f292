"""The trained network that a user takes home: one file with the weights and all that is needed to use them."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ffsd_ray.backbones import backbone
from ffsd_ray.data.batches import normalise
from ffsd_ray.data.picture import fit, upright
from ffsd_ray.data.stream import tested_at
from ffsd_ray.errors import RecordsError
from ffsd_ray.records.shape import Unlike
from ffsd_ray.records.stamp import KEY, blank, check_stamp, stamped, trial_owner


@dataclass(frozen=True)
class Card:
    """What a weights file says about itself."""

    backbone: str
    classes: tuple[str, ...]
    #: Of the training images' channels, pixels scaled to [0, 1].
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: Side of the square images in pixels.
    image_size: int
    precision: str
    #: The member of the group whose weights these are.
    member: str
    epoch: int
    #: The split that `top1`, in percent, was measured on.
    split: str
    top1: float
    #: The trial's spec, and its identity.
    spec: dict[str, Any]
    trial: str


class Leader(nn.Module):
    """A trained backbone: normalised images [B, 3, S, S] to logits [B, K]."""

    def __init__(self, backbone: nn.Module, card: Card) -> None:
        super().__init__()
        self.backbone = backbone
        self.card = card

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by index of the logits."""
        return self.card.classes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(images).logits
        return logits

    def preprocess(self, image: Image.Image | Tensor) -> Tensor:
        """A picture, or its pixels (uint8 RGB [3, H, W]), as the network wants it: float32 [3, S, S].

        The shorter side is scaled and the centre square cut out, as the data source does with test images.

        Raises:
            ValueError: the picture cannot be decoded, or these are not such pixels.
        """
        pixels = upright(image) if isinstance(image, Image.Image) else image
        if pixels.dtype != torch.uint8 or pixels.dim() != 3 or len(pixels) != 3:
            raise ValueError(f"expected uint8 pixels [3, H, W], got {pixels.dtype} {list(pixels.shape)}")
        size = self.card.image_size
        scaled = tested_at(size) if self.card.spec["data"].get("stream") else size
        return normalise(fit(pixels, size, scaled), self.card.mean, self.card.std)


def pack(weights: Mapping[str, Tensor], card: Card) -> bytes:
    """The content of a weights file, equal for equal arguments: the backbone's state, its card in the metadata.

    In the card is the file's stamp (`ffsd_ray.records.stamp`).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # One entry: safetensors writes several in an order that changes from call to call.
    content = {KEY: blank(trial_owner(card.trial)), **dataclasses.asdict(card)}
    return bytes(stamped(save(tensors, metadata={"card": json.dumps(content, ensure_ascii=False)})))


def load_leader(path: str | PathLike[str]) -> Leader:
    """The network in a weights file (`leader_best.safetensors` of a trial), in evaluation mode, on the CPU.

    Raises:
        RecordsError: the file is missing, is not such a file, has changed since it was written, or its weights do not
            fit the backbone it names.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: the file's own memory is not aligned, with which some kernels differ in the last bit.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except Exception as error:  # whatever a parser meets in bytes from somewhere else
        raise RecordsError(f"{path}: expected a safetensors file, such as a trial's leader_best: {error}") from error
    if "card" not in metadata:
        raise RecordsError(f"{path}: a safetensors file, but not one of ffsd_ray: it has no `card` in its metadata")
    try:
        check_stamp(Path(path).read_bytes())
    except Unlike as error:
        raise RecordsError(f"{path}: {error}; it is damaged, or of another version") from error
    try:
        card = TypeAdapter(Card).validate_json(metadata["card"])
    except ValidationError as error:
        raise RecordsError(f"{path}: its card is damaged, or of another version: {error}") from error
    try:
        build = backbone(card.backbone)
    except ValueError as error:
        raise RecordsError(f"{path}: unknown backbone {card.backbone}: {error}") from error
    try:
        with torch.device("meta"):
            network = build(len(card.classes))
        network.load_state_dict(weights, assign=True)
    except Exception as error:  # shapes, kinds and numbers of tensors may be any
        raise RecordsError(f"{path}: expected {card.backbone} for {len(card.classes)} classes: {error}") from error
    return Leader(network, card).eval()
