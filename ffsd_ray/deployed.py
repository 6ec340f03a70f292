"""The trained network that a user takes home: one file with the weights and all that is needed to use them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ffsd_ray.backbones import UnknownBackbone, backbone
from ffsd_ray.card import Card
from ffsd_ray.data.batches import normalise
from ffsd_ray.data.class_folders import pictures_below
from ffsd_ray.data.decode import decode_named
from ffsd_ray.data.listing import Span
from ffsd_ray.data.picture import fit, upright
from ffsd_ray.data.streaming import eval_resize
from ffsd_ray.errors import RecordsError
from ffsd_ray.file_schema import SchemaError, described
from ffsd_ray.meta_device import meta_device
from ffsd_ray.stamp import KEY, blank, check_stamp, stamped, trial_owner
from ffsd_ray.storage import check_regular

#: Tensors that a message names, of those that are wrong.
_NAMED = 3

#: Pictures that are classified together.
_AT_ONCE = 100


_CARD = TypeAdapter(Card)


#: A picture: opened, as its pixels (uint8 RGB [3, H, W]), or its path.
Picture = Image.Image | Tensor | str | PathLike[str]


class Prediction(NamedTuple):
    """What a network sees in a picture."""

    picture: str
    """Its path; of a picture that has none, its number among those that were given."""
    label: str
    """The most probable class."""
    probability: float
    probabilities: dict[str, float]
    """Of every class, the most probable first."""


class DeployedModel(nn.Module):
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

    def finite(self, images: Tensor) -> Tensor:
        """The logits.

        Raises:
            RecordsError: some are no finite numbers, and so would be all that is computed from them.
        """
        logits: Tensor = self(images)
        if not logits.isfinite().all():
            raise RecordsError(f"the {self.card.backbone} in the weights file computes logits that are not finite")
        return logits

    @torch.inference_mode()
    def logits(self, pictures: Sequence[Picture]) -> Tensor:
        """Logits [N, K] of pictures.

        Raises:
            DataError: a file is missing, or no picture.
            RecordsError: the network's logits are not finite.
        """
        logits = []
        for start in range(0, len(pictures), _AT_ONCE):
            images = [self.preprocess(_opened(picture)) for picture in pictures[start : start + _AT_ONCE]]
            logits.append(self.finite(torch.stack(images)))
        return torch.cat(logits)

    def predict(self, pictures: Picture | Sequence[Picture]) -> list[Prediction]:
        """Name what is in a picture, in each of several, or in every picture in a folder and its subfolders.

        Raises:
            DataError: a file is missing, or no picture.
            RecordsError: the network's logits are not finite.
        """
        several = [pictures] if isinstance(pictures, Image.Image | Tensor | str | PathLike) else list(pictures)
        each: list[Picture] = []
        for picture in several:
            if isinstance(picture, str | PathLike) and Path(picture).is_dir():
                each += pictures_below(Path(picture))
            else:
                each.append(picture)
        names = [str(number) if isinstance(one, Image.Image | Tensor) else str(one) for number, one in enumerate(each)]
        found = self.logits(each).softmax(dim=1).sort(dim=1, descending=True)
        return [
            Prediction(name, of_all[0][0], of_all[0][1], dict(of_all))
            for name, values, order in zip(names, found.values.tolist(), found.indices.tolist(), strict=True)
            for of_all in [[(self.classes[index], value) for index, value in zip(order, values, strict=True)]]
        ]

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
        scaled = eval_resize(size) if self.card.spec["data"].get("stream") else size
        return normalise(fit(pixels, size, scaled), self.card.mean, self.card.std)


def _opened(picture: Picture) -> Image.Image | Tensor:
    if isinstance(picture, Image.Image | Tensor):
        return picture
    return decode_named(Span(str(picture)), str(picture), None)


def pack(weights: Mapping[str, Tensor], card: Card) -> bytes:
    """The content of a weights file, equal for equal arguments: the backbone's state, its card in the metadata.

    In the card is the file's stamp (`ffsd_ray.stamp`).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # One entry: safetensors writes several in an order that changes from call to call.
    content = {KEY: blank(trial_owner(card.trial)), **dataclasses.asdict(card)}
    return bytes(stamped(save(tensors, metadata={"card": json.dumps(content, ensure_ascii=False)})))


def load_model(path: str | PathLike[str]) -> DeployedModel:
    """The network in a weights file (`model_best.safetensors` of a trial), in evaluation mode, on the CPU.

    >>> model = load_model("runs/demo/best.safetensors")
    >>> [prediction] = model.predict(Image.new("RGB", (20, 20)))
    >>> prediction.label in model.classes
    True

    Raises:
        RecordsError: the file is missing, is not such a file, has changed since it was written, or its weights do not
            fit the backbone it names.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            card = _card(path, file.metadata() or {})
            network = _network(path, card)
            _check_names(path, card, network, file)
            # Copied: the file's own memory is not aligned, with which some kernels differ in the last bit.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except RecordsError:
        raise
    except Exception as error:  # whatever a parser meets in bytes from somewhere else
        raise RecordsError(f"{path}: expected a safetensors file, such as a trial's model_best: {error}") from error
    not_finite = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if not_finite:
        raise RecordsError(f"{path}: expected finite weights, found others in {some_names(not_finite)}")
    try:
        check_stamp(Path(path).read_bytes())
    except SchemaError as error:
        raise RecordsError(f"{path}: {error}; it is damaged, or of another version") from error
    network.load_state_dict(weights, assign=True)
    return DeployedModel(network, card).eval()


def _card(path: str | PathLike[str], metadata: Mapping[str, str]) -> Card:
    if "card" not in metadata:
        raise RecordsError(f"{path}: a safetensors file, but not one of ffsd_ray: it has no `card` in its metadata")
    try:
        return _CARD.validate_json(metadata["card"])
    except ValidationError as error:
        raise RecordsError(f"{path}: its card is damaged, or of another version: {described(error)}") from error


def _network(path: str | PathLike[str], card: Card) -> nn.Module:
    """The card's backbone, without memory for its parameters."""
    try:
        build = backbone(card.backbone)
    except (UnknownBackbone, ValueError) as error:
        raise RecordsError(f"{path}: unknown backbone {card.backbone}: {error}") from error
    with meta_device():
        return build(len(card.classes))


def _check_names(path: str | PathLike[str], card: Card, network: nn.Module, file: Any) -> None:
    """Raise RecordsError where the file's tensors are not the network's: before any is read, for they may be many."""
    wanted = {name: (list(tensor.shape), _DTYPES.get(tensor.dtype)) for name, tensor in network.state_dict().items()}
    slices = {name: file.get_slice(name) for name in file.keys() if name in wanted}  # noqa: SIM118 (no mapping)
    others = [name for name in file.keys() if name not in wanted]  # noqa: SIM118
    wrong = [
        f"{name} {part.get_dtype()}{part.get_shape()} instead of {wanted[name][1]}{wanted[name][0]}"
        for name, part in slices.items()
        if (part.get_shape(), part.get_dtype()) != wanted[name]
    ]
    faults = {"no": [name for name in wanted if name not in slices], "unknown": others, "": wrong}
    said = "; ".join(f"{kind} {some_names(names)}".strip() for kind, names in faults.items() if names)
    if said:
        raise RecordsError(f"{path}: expected {card.backbone} for {len(card.classes)} classes: {said}")


#: As safetensors names the types that parameters and buffers of backbones have.
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.float64: "F64", torch.bool: "BOOL"}


def some_names(names: list[str]) -> str:
    """The first of several tensors' names, and how many are left out."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
