"""Images that do not fit in memory: decoded by separate processes during training, augmented as for ImageNet."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.utils.data
from torch import Tensor

from ffsd_ray.data.base import BatchInputs
from ffsd_ray.data.counter_rng import shift_right, uniforms
from ffsd_ray.data.decode import decode_item
from ffsd_ray.data.listing import Encoded
from ffsd_ray.data.picture import fit
from ffsd_ray.errors import DataError
from ffsd_ray.interruption import children_spared

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Parameters of torchvision's RandomResizedCrop: share of the image's area, width : height, attempts before it falls
#: back to the centre.
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10

#: Maximum number of batches on the device, the one in use and the next: a host that only launches CUDA graphs would
#: otherwise run far ahead.
_BATCHES_ON_DEVICE = 2


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
