"""Images that do not fit in memory: decoded by separate processes during training, augmented as for ImageNet."""

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
from ffsd_ray.data.base import BatchInputs, Dataset, DataSettings
from ffsd_ray.data.counter_rng import shift_right, uniforms
from ffsd_ray.data.decode import DamagePolicy, Encoded, Listing, check_not_empty, decode_item, without_damaged
from ffsd_ray.data.fingerprint import content_fingerprint
from ffsd_ray.data.picture import fit
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.interruption import children_spared
from ffsd_ray.storage import is_uri, shown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Parameters of torchvision's RandomResizedCrop: share of the image's area, width : height, attempts before it falls
#: back to the centre.
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


#: Maximum number of batches on the device, the one in use and the next: a host that only launches CUDA graphs would
#: otherwise run far ahead.
_BATCHES_ON_DEVICE = 2


def _check_channels(value: Any) -> Any:
    """Check that a value is three numbers in [0, 1], one for each channel. Raises PydanticCustomError."""
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
    """Settings of a source whose images are files, possibly in an object store, and can be streamed."""

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
    mean: Annotated[tuple[Share, Share, Share], Field(strict=False), BeforeValidator(_check_channels)] | None = Field(
        None,
        description="Mean of the red, green and blue pixels, scaled to [0, 1], for their normalisation; null: that of "
        "the training images, of a stream ImageNet's.",
    )
    std: (
        Annotated[tuple[Deviation, Deviation, Deviation], Field(strict=False), BeforeValidator(_check_channels)] | None
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
        """Copy the files that URIs name to this node; yield these settings with local paths in their place.

        Raises:
            DataError: see `remote.local_copy`.
        """

    @abstractmethod
    def named_files(self) -> list[tuple[str, str]]:
        """(name, path) of each file that is read, on this node; the name does not depend on the data set's location.

        Raises:
            DataError: the files cannot be found.
        """

    @abstractmethod
    def encoded(self) -> Listing:
        """The images before decoding, all in files of this node.

        Raises:
            DataError: they cannot be listed.
        """

    @abstractmethod
    def decoded(self, progress: bool) -> Dataset:
        """The decoded images in memory.

        Raises:
            DataError: see `decode.read_decoded`.
        """

    @classmethod
    def location_keys(cls) -> list[str]:
        """The settings keys whose values are locations of images."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("location")]

    @property
    def locations(self) -> dict[str, str]:
        """Locations of the images (paths, patterns or URIs) by settings key, without those that are null."""
        return {key: location for key in self.location_keys() if (location := getattr(self, key)) is not None}

    def without_fetching(self) -> Self:
        if remote := list(filter(is_uri, self.locations.values())):
            raise DataMissing(f"{shown(remote[0])}: the images are not copied here for this")
        return self

    def with_fingerprint(self, progress: bool) -> Self:
        """These settings with the `fingerprint` of the images.

        Raises:
            DataError: the images cannot be read, or do not have the fingerprint that the settings already name.
        """
        with self.local_copy(progress) as local:
            return self.changed(fingerprint=local._checked_fingerprint(progress))

    def _checked_fingerprint(self, progress: bool) -> str:
        """The fingerprint of the images, which are on this node. Raises DataError if the settings name another one."""
        fingerprint = content_fingerprint(self.named_files(), self.cache, progress=progress)
        if self.fingerprint not in (None, fingerprint):
            places = ", ".join(self.locations.values())
            raise DataError(
                f"data.fingerprint: {places}: the images have changed, or this node has others: expected "
                f"{self.fingerprint}, found {fingerprint}"
            )
        return fingerprint

    def read(self, progress: bool) -> Dataset:
        with self.local_copy(progress) as local:
            if self.fingerprint is not None:
                local._checked_fingerprint(progress)
            dataset = local._streamed(progress) if self.stream else local.decoded(progress)
        skipped, notes = (
            tuple(self._with_given_locations(local, text) for text in texts)
            for texts in (dataset.skipped, dataset.notes)
        )
        if skipped:
            notes += (f"{len(skipped):,} damaged images are left out; each trial's skipped.json lists them.",)
        mean, std = self.mean or dataset.mean, self.std or dataset.std
        return replace(dataset, mean=mean, std=std, skipped=skipped, notes=notes)

    def _with_given_locations(self, local: Self, text: str) -> str:
        """Replace paths of copies (those in `local`) in a message by the locations in these settings."""
        for key, location in self:
            if (copy := getattr(local, key)) != location:
                local_location, given_location = copy, shown(location).rstrip("/")
                if (pattern := os.path.basename(given_location)) == os.path.basename(local_location):
                    local_location, given_location = (
                        local_location.removesuffix(f"/{pattern}"),
                        given_location.removesuffix(f"/{pattern}"),
                    )
                text = text.replace(local_location, given_location)
        return text

    @property
    def damage_policy(self) -> DamagePolicy:
        """What to do about damaged images, by `on_error` and `max_skipped`."""
        return DamagePolicy(self.on_error, self.max_skipped)

    def _streamed(self, progress: bool) -> Dataset:
        """The data set as streams; with `on_error: skip` without the images that prove to be damaged."""
        assert self.known_size is not None
        listing, skipped = self.encoded(), tuple[str, ...]()
        if self.on_error == "skip":
            listing, skipped = without_damaged(
                listing, cache=self.cache, progress=progress, on_error=self.damage_policy
            )
        check_not_empty(listing)
        decoder = Decoder(self.known_size, self.loader_processes)
        train, val, test = (Stream(part, self.known_size, decoder) for part in listing.splits.values())
        held_out = val if len(val) else None
        return Dataset(train, held_out, test, listing.classes, IMAGENET_MEAN, IMAGENET_STD, skipped, listing.notes)

    @model_validator(mode="after")
    def _stream_settings_agree(self) -> Self:
        if self.stream and self.known_size is None:
            refuse(self, [Problem(("image_size",), None, "A stream needs the size in pixels that its crops have")])
        if self.stream and self.crop_padding != type(self).model_fields["crop_padding"].default:
            expected = "A stream's random crops have no padding; leave it out"
            refuse(self, [Problem(("crop_padding",), self.crop_padding, expected)])
        return self


@dataclass(frozen=True)
class Stream:
    """A `Split` of encoded images of any shapes, which are decoded when they are needed.

    All streams of a data set share one `decoder`, which allows one iteration at a time.
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
        """RandomResizedCrop and flip; `crop_padding` is ignored."""
        return ResizedCrops(self, flip)

    def unaugmented(self, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        tasks = (Task(self.items[part], None) for part in parts)
        batches = zip(self.decoder(tasks, self.device), (self.labels[part] for part in parts), strict=True)
        for images, labels in _copied_to_device(batches, self.device):
            yield images[:, 0], labels


class ResizedCrops:
    """An `Augmentation`: RandomResizedCrop in the decoding processes, the flip on the device."""

    def __init__(self, stream: Stream, flip: bool) -> None:
        self._stream, self._flip = stream, flip

    def prepare(self, order: Tensor, keys: Tensor, parts: Sequence[slice]) -> Iterator[BatchInputs]:
        """Yield for each part: crops uint8 [b, views, 3, S, S], whether to mirror them bool [b, views], labels [b]."""
        stream, mirrored = self._stream, shift_right(keys, 63).bool()
        tasks = (Task([stream.items[index] for index in order[part].tolist()], keys[part].tolist()) for part in parts)
        pixels = stream.decoder(tasks, stream.device)
        others = ((mirrored[part], stream.labels[order[part]]) for part in parts)
        batches = ((crops, *other) for crops, other in zip(pixels, others, strict=True))
        yield from _copied_to_device(batches, stream.device)

    def views(self, inputs: BatchInputs) -> tuple[list[Tensor], Tensor]:
        crops, mirrored, labels = inputs
        if self._flip:
            crops = torch.where(mirrored[:, :, None, None, None], crops.flip(-1), crops)
        return list(crops.unbind(dim=1)), labels


class Task(NamedTuple):
    """A batch to decode, self-contained, so that processes start fast and need no list of the data set's files."""

    items: Sequence[Encoded]
    keys: list[list[int]] | None
    """Random bits of the crop of each image and view (see `Augmentation.prepare`); None: a centre crop, for testing."""


class CropDataset(torch.utils.data.Dataset[Tensor | DataError]):
    """Decodes and crops in the decoding processes: indexed by a `Task`, returns uint8 [b, views, 3, size, size].

    The error of a damaged image is returned: if it was raised, `DataLoader` would replace its message by a traceback.
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
        """Random crops of an image, uint8 [views, 3, size, size]; `draws`: of `crop_box`, for each view."""
        from torchvision.transforms.v2.functional import resized_crop  # takes seconds; settings are checked without it

        image = decode_item(item, None)
        boxes = [crop_box(image.shape[1], image.shape[2], drawn) for drawn in draws]
        return torch.stack([resized_crop(image, *box, [self._size, self._size], antialias=True) for box in boxes])


def eval_resize(size: int) -> int:
    """The pixels to which a test image's shorter side is scaled before its centre of `size` is cropped: 256 for 224."""
    return round(size * 256 / 224)


def crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, distributed as in torchvision's RandomResizedCrop.

    `draws`: 4 · `ATTEMPTS` uniform numbers in [0, 1): for each attempt area, aspect ratio, row and column.
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
    """Decodes tasks in order, in processes that start with the first batch and end when this object is deleted.

    The processes are spawned. Forked ones would inherit locks that threads of Ray, gRPC or CUDA hold at that moment; a
    fork server's would survive a killed training process, since they watch their parent, which is the server.
    """

    def __init__(self, size: int, processes: int) -> None:
        """`size`: side of the crops in pixels; `processes`: 0 to decode in the calling process."""
        self._size, self._processes = size, processes
        self._tasks = _TaskSampler()
        self._loader: torch.utils.data.DataLoader[Tensor | DataError] | None = None
        self._iterations = 0

    def __call__(self, tasks: Iterable[Task], device: torch.device) -> Iterator[Tensor]:
        """Yield each task's images, uint8 [b, views, 3, size, size], on the CPU, in pinned memory if `device` is a GPU.

        Raises:
            DataError: an image cannot be read or decoded.
        """
        if self._loader is None:
            self._loader = torch.utils.data.DataLoader(
                CropDataset(self._size),
                batch_size=None,  # an "index" is a whole batch's task
                sampler=self._tasks,
                num_workers=self._processes,
                persistent_workers=self._processes > 0,
                multiprocessing_context="spawn" if self._processes else None,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # otherwise each epoch would advance torch's global random state
            )
        self._tasks.current = tasks
        self._iterations += 1
        iteration = self._iterations
        with children_spared():
            batches = iter(self._loader)
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch
            assert iteration == self._iterations, "another iteration over this data set began before this one ended"


class _TaskSampler(torch.utils.data.Sampler[Task]):
    """A sampler whose tasks can be replaced before each iteration, since persistent workers keep their sampler."""

    current: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.current)


def _copied_to_device(batches: Iterable[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batches on the device; a GPU receives the next one while it computes on the current one."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    used: deque[torch.cuda.Event] = deque()
    for batch in batches:
        if len(used) == _BATCHES_ON_DEVICE:
            used.popleft().synchronize()
        with torch.cuda.stream(copying):
            copied = tuple(tensor.to(device, non_blocking=True) for tensor in batch)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in copied:
            tensor.record_stream(computing)
        yield copied
        used.append(computing.record_event())
