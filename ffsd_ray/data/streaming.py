"""Images that do not fit in memory, decoded while training by processes of their own: the ImageNet protocol."""

import math
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
import torch.utils.data
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from ffsd_ray.base_settings import NOT_IDENTITY, Deviation, Problem, Sha256, Share, refuse
from ffsd_ray.data.base import Dataset, DataSettings, Drawn
from ffsd_ray.data.counter_rng import shift, uniforms
from ffsd_ray.data.decode import Encoded, Listing, OnError, check_not_empty, decode_item, without_damaged
from ffsd_ray.data.fingerprint import content_fingerprint
from ffsd_ray.data.picture import fit
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.interruption import children_spared
from ffsd_ray.storage import is_uri, shown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: torchvision's RandomResizedCrop: share of the image's area, width to height, tries before the centre is taken.
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


#: Batches on the device at once: the one in use and the next. A host that only launches graphs would run far ahead.
_IN_FLIGHT = 2


def _three_shares(value: Any) -> Any:
    """Refuse what are no three numbers on the scale [0, 1], in words that say so."""
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        expected = "Should be 3 numbers, one each for red, green and blue, with pixels scaled to [0, 1]"
    elif all(0 <= number <= 1 for number in numbers):
        return value
    else:
        expected = "Should be of pixels scaled to [0, 1]"
        if all(0 <= number <= 255 for number in numbers):
            expected += f", so divide by 255: [{', '.join(f'{number / 255:.4g}' for number in numbers)}]"
    raise PydanticCustomError("channels", "{expected}", {"expected": expected})


class StreamableSettings(DataSettings):
    """A source whose images need not fit in memory."""

    stream: bool = Field(
        False,
        description="Decode while training instead of once before it; for images that do not fit in memory. As on "
        "ImageNet, training images are then random crops scaled to image_size (RandomResizedCrop), and of test images, "
        "the shorter side scaled to 256/224 of image_size, the centre is cut out.",
    )
    loader_processes: int = Field(
        2,
        ge=0,
        le=256,
        json_schema_extra=NOT_IDENTITY,
        description="Processes of a worker that decode a stream; 0: the worker itself does.",
    )
    mean: Annotated[tuple[Share, Share, Share], Field(strict=False), BeforeValidator(_three_shares)] | None = Field(
        None,
        description="Mean of the red, green and blue pixels, scaled to [0, 1], for their normalisation; null: that of "
        "the training images, of a stream ImageNet's.",
    )
    std: (
        Annotated[tuple[Deviation, Deviation, Deviation], Field(strict=False), BeforeValidator(_three_shares)] | None
    ) = Field(None, description="Their standard deviation, likewise.")
    fingerprint: Sha256 | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="SHA-256 of the images' content and of their names below `root`. It tells trials apart in place of "
        "where the images lie, and they must still have it when a trial begins; null: as they are when the job is run.",
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description="What is done about damaged images: the run fails, or they are left out and listed in each trial's "
        "skipped.json. A stream finds them before training, for which all images are decoded once.",
    )
    max_skipped: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of all images above which on_error: skip fails too. It fails as well where no image of a "
        "class would be left.",
        json_schema_extra=NOT_IDENTITY,
    )

    @abstractmethod
    def local_copy(self, progress: bool) -> AbstractContextManager[Self]:
        """These settings with paths on this node, whereto what URIs name has been copied. Raises DataError."""

    @abstractmethod
    def named_files(self) -> list[tuple[str, str]]:
        """The files that are read, on this node: a name that does not depend on where they lie, and the path.

        Raises DataError.
        """

    @abstractmethod
    def encoded(self) -> Listing:
        """The images before decoding. Raises DataError."""

    @abstractmethod
    def decoded(self, progress: bool) -> Dataset:
        """The images in memory. Raises DataError."""

    @classmethod
    def location_keys(cls) -> list[str]:
        """The keys that say where the images lie."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("location")]

    @property
    def locations(self) -> dict[str, str]:
        """Where the images lie, by the key that says so; without those that are null."""
        return {key: location for key in self.location_keys() if (location := getattr(self, key)) is not None}

    def without_fetching(self) -> Self:
        if remote := list(filter(is_uri, self.locations.values())):
            raise DataMissing(f"{shown(remote[0])}: the images are not copied here for this")
        return self

    def with_fingerprint(self, progress: bool) -> Self:
        """These settings with the fingerprint of the images as they are.

        Raises:
            DataError: the images cannot be read, or have not the fingerprint that the settings name.
        """
        with self.local_copy(progress) as local:
            return self.changed(fingerprint=local._fingerprint_here(progress))

    def _fingerprint_here(self, progress: bool) -> str:
        found = content_fingerprint(self.named_files(), self.cache, progress=progress)
        if self.fingerprint not in (None, found):
            places = ", ".join(self.locations.values())
            raise DataError(
                f"data.fingerprint: {places}: the images have changed, or this node has others: expected "
                f"{self.fingerprint}, found {found}"
            )
        return found

    def read(self, progress: bool) -> Dataset:
        with self.local_copy(progress) as local:
            if self.fingerprint is not None:
                local._fingerprint_here(progress)
            dataset = local._streamed(progress) if self.stream else local.decoded(progress)
        skipped, notes = (
            tuple(self._as_given(local, text) for text in texts) for texts in (dataset.skipped, dataset.notes)
        )
        if skipped:
            notes += (f"{len(skipped):,} damaged images are left out; each trial's skipped.json lists them.",)
        mean, std = self.mean or dataset.mean, self.std or dataset.std
        return replace(dataset, mean=mean, std=std, skipped=skipped, notes=notes)

    def _as_given(self, local: Self, text: str) -> str:
        """A text about this node's copies, naming the URIs that they are of."""
        for key, location in self:
            if (copy := getattr(local, key)) != location:
                here, there = copy, shown(location).rstrip("/")
                if (pattern := os.path.basename(there)) == os.path.basename(here):
                    here, there = here.removesuffix(f"/{pattern}"), there.removesuffix(f"/{pattern}")
                text = text.replace(here, there)
        return text

    @property
    def damaged(self) -> OnError:
        """The policy for damaged images."""
        return OnError(self.on_error, self.max_skipped)

    def _streamed(self, progress: bool) -> Dataset:
        assert self.known_size is not None
        listing, skipped = self.encoded(), tuple[str, ...]()
        if self.on_error == "skip":
            listing, skipped = without_damaged(listing, cache=self.cache, progress=progress, on_error=self.damaged)
        check_not_empty(listing)
        decoder = Decoder(self.known_size, self.loader_processes)
        train, val, test = (Stream(part, self.known_size, decoder) for part in listing.splits.values())
        held_out = val if len(val) else None
        return Dataset(train, held_out, test, listing.classes, IMAGENET_MEAN, IMAGENET_STD, skipped, listing.notes)

    @model_validator(mode="after")
    def _stream_is_whole(self) -> Self:
        if self.stream and self.known_size is None:
            refuse(self, [Problem(("image_size",), None, "A stream needs the size in pixels that its crops have")])
        if self.stream and self.crop_padding != type(self).model_fields["crop_padding"].default:
            expected = "A stream's random crops have no padding; leave it out"
            refuse(self, [Problem(("crop_padding",), self.crop_padding, expected)])
        return self


@dataclass(frozen=True)
class Stream:
    """Encoded images, of any shapes, whose batches appear on `device`. A `Split`.

    Those made from each other and from one data set share its `decoder`, which serves one iteration at a time.
    """

    items: Sequence[Encoded]
    image_size: int
    decoder: "Decoder"
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def labels(self) -> Tensor:
        return torch.tensor([item.label for item in self.items], dtype=torch.int64)

    def to(self, device: torch.device | str) -> "Stream":
        return replace(self, device=torch.device(device))

    def select(self, indices: Tensor) -> "Stream":
        return replace(self, items=[self.items[index] for index in indices.tolist()])

    def augmentation(self, *, crop_padding: int, flip: bool) -> "ResizedCrops":
        """RandomResizedCrop and flip; `crop_padding` plays no part."""
        return ResizedCrops(self, flip)

    def plain(self, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        tasks = (Task(self.items[part], None) for part in parts)
        batches = zip(self.decoder(tasks, self.device), (self.labels[part] for part in parts), strict=True)
        for images, labels in _on_device(batches, self.device):
            yield images[:, 0], labels


class ResizedCrops:
    """RandomResizedCrop in the decoding processes, the flip on the device. An `Augmentation`."""

    def __init__(self, stream: Stream, flip: bool) -> None:
        self._stream, self._flip = stream, flip

    def draw(self, order: Tensor, keys: Tensor, parts: Sequence[slice]) -> Iterator[Drawn]:
        """For each part: crops uint8 [b, views, 3, S, S], whether each is mirrored bool [b, views], labels [b]."""
        stream, mirrored = self._stream, shift(keys, 63).bool()
        tasks = (Task([stream.items[index] for index in order[part].tolist()], keys[part].tolist()) for part in parts)
        pixels = stream.decoder(tasks, stream.device)
        others = ((mirrored[part], stream.labels[order[part]]) for part in parts)
        batches = ((crops, *other) for crops, other in zip(pixels, others, strict=True))
        yield from _on_device(batches, stream.device)

    def views(self, drawn: Drawn) -> tuple[list[Tensor], Tensor]:
        crops, mirrored, labels = drawn
        if self._flip:
            crops = torch.where(mirrored[:, :, None, None, None], crops.flip(-1), crops)
        return list(crops.unbind(dim=1)), labels


class Task(NamedTuple):
    """A batch to decode. All that a process needs comes with it, so processes start fast and hold no list of files."""

    items: Sequence[Encoded]
    keys: list[list[int]] | None
    """For each image and view the random bits of its crop (see `Split.augmented`); None: as for testing, one view."""


class CropDataset(torch.utils.data.Dataset[Tensor | DataError]):
    """The work of the decoding processes: a `Task` to uint8 [b, views, 3, size, size].

    A broken image's error is returned: raised there, it would arrive wrapped in a traceback.
    """

    def __init__(self, size: int) -> None:
        self._size, self._scaled = size, eval_resize(size)

    def __getitem__(self, task: Task) -> Tensor | DataError:
        try:
            if task.keys is None:
                views = [fit(decode_item(item, None), self._size, self._scaled)[None] for item in task.items]
            else:
                draws = uniforms(torch.tensor(task.keys), 4 * ATTEMPTS).tolist()
                views = [self._crops(item, drawn) for item, drawn in zip(task.items, draws, strict=True)]
        except DataError as error:
            return error
        return torch.stack(views)

    def _crops(self, item: Encoded, draws: list[list[float]]) -> Tensor:
        from torchvision.transforms.v2.functional import resized_crop  # takes seconds; settings are checked without it

        image = decode_item(item, None)
        boxes = [crop_box(image.shape[1], image.shape[2], drawn) for drawn in draws]
        return torch.stack([resized_crop(image, *box, [self._size, self._size], antialias=True) for box in boxes])


def eval_resize(size: int) -> int:
    """The length to which a test image's shorter side is scaled before its centre is cut out: 256 for 224."""
    return round(size * 256 / 224)


def crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop, distributed as in torchvision's RandomResizedCrop.

    `draws`: 4 numbers in [0, 1) for each of `ATTEMPTS` (area, ratio of the sides, row, column).
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    for attempt in range(ATTEMPTS):
        area, ratio, row, column = draws[4 * attempt : 4 * attempt + 4]
        target = height * width * (SCALE[0] + area * (SCALE[1] - SCALE[0]))
        aspect = math.exp(low + ratio * (high - low))
        h, w = round(math.sqrt(target / aspect)), round(math.sqrt(target * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
    h, w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


class Decoder:
    """Decodes tasks in order, in processes that start with the first batch and stay until this is let go.

    They are spawned. A fork would copy the locks that threads of Ray, gRPC or CUDA hold at that moment. A fork server's
    children would outlive a training process that is killed: what they watch is their parent, the server.
    """

    def __init__(self, size: int, processes: int) -> None:
        self._size, self._processes = size, processes
        self._tasks = _Replaceable()
        self._loader: torch.utils.data.DataLoader[Tensor | DataError] | None = None
        self._turn = 0

    def __call__(self, tasks: Iterable[Task], device: torch.device) -> Iterator[Tensor]:
        """Each task's images, uint8 [b, views, 3, size, size], for a GPU in pinned memory. Raises DataError."""
        if self._loader is None:
            self._loader = torch.utils.data.DataLoader(
                CropDataset(self._size),
                batch_size=None,  # an "index" is a whole batch's task
                sampler=self._tasks,
                num_workers=self._processes,
                persistent_workers=self._processes > 0,
                multiprocessing_context="spawn" if self._processes else None,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # else each epoch would advance torch's own random state
            )
        self._tasks.current = tasks
        self._turn += 1
        turn = self._turn
        with children_spared():
            batches = iter(self._loader)
        for found in batches:
            if isinstance(found, DataError):
                raise found
            yield found
            assert turn == self._turn, "another iteration over this data set began before this one ended"


class _Replaceable(torch.utils.data.Sampler[Task]):
    """The tasks of the iteration that is about to begin."""

    current: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.current)


def _on_device(batches: Iterable[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """The batches on the device; to a GPU they are copied while it still computes on the one before."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    used: deque[torch.cuda.Event] = deque()
    for batch in batches:
        if len(used) == _IN_FLIGHT:
            used.popleft().synchronize()
        with torch.cuda.stream(copying):
            copied = tuple(tensor.to(device, non_blocking=True) for tensor in batch)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in copied:
            tensor.record_stream(computing)
        yield copied
        used.append(computing.record_event())
