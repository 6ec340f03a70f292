"""The reference of speed: FFSD as one would write it down, which is how the authors wrote it."""

from functools import cached_property
from itertools import islice

import torch
import torch.utils.data
from torch import Tensor

from ffsd_ray.bench.measure.workload import EPOCH, use_settings, with_train
from ffsd_ray.bench.reference.algorithm1 import LiteralAlgorithm1
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, Images
from ffsd_ray.methods.ffsd import Ffsd, FfsdSettings
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.device import use_device

_LOADER_PROCESSES = 2


def reference_spec(spec: TrialSpec) -> TrialSpec | None:
    """The trial whose literal form a trial is measured against: in fp32; None where Algorithm 1 is not its method."""
    method = spec.method
    whole = isinstance(method, FfsdSettings) and (method.diversity, method.self_distillation, method.fusion) == (
        "attention",
        "both",
        True,
    )
    return with_train(spec, precision="fp32", execution="eager") if whole else None


class Reference:
    """`LiteralAlgorithm1` in torch's default memory format, fed by a DataLoader with torchvision's transforms."""

    def __init__(self, spec: TrialSpec, dataset: Dataset, device: torch.device) -> None:
        """`spec`: as `reference_spec` returns it."""
        use_settings(spec)
        use_device(device, spec.train.precision)
        self._spec, self._dataset, self._device = spec, dataset, device
        group = build_method(spec, dataset.num_classes, dataset.image_size).to(device)
        assert isinstance(group, Ffsd)
        self._algorithm = LiteralAlgorithm1(group, spec.train)
        self.steps = train_batches(spec, dataset, device, views=1).steps
        first = next(train_batches(with_train(spec, steps_per_epoch=1), dataset, device, views=1).epoch(EPOCH))
        self._resident = first.views[0], first.labels

    @property
    def has_epoch(self) -> bool:
        """Whether its images can be augmented as the authors do, one by one from memory."""
        return isinstance(self._dataset.train, Images)

    def step(self) -> object:
        """One iteration of Algorithm 1 on a batch that is on the device already."""
        use_settings(self._spec)
        return self._algorithm.step(*self._resident, EPOCH)

    def epoch(self, steps: int) -> None:
        """The first `steps` of an epoch. No accuracy is measured, which costs the authors' code more."""
        use_settings(self._spec)
        for images, labels in islice(self._loader(), steps):
            self._algorithm.step(images.to(self._device), labels.to(self._device), EPOCH)

    @cached_property
    def _samples(self) -> "_Augmented":
        return _Augmented(self._spec, self._dataset)

    def _loader(self) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        return torch.utils.data.DataLoader(
            self._samples,
            self._spec.train.batch_size,
            shuffle=True,
            num_workers=_LOADER_PROCESSES,
            pin_memory=self._device.type == "cuda",
        )


class _Augmented(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Images as torchvision's CIFAR data set gives them: a PIL image a sample, then transforms."""

    def __init__(self, spec: TrialSpec, dataset: Dataset) -> None:
        from torchvision import transforms  # takes seconds

        assert isinstance(dataset.train, Images)
        self._pixels = dataset.train.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = dataset.train.labels.cpu()
        size, padding = dataset.image_size, spec.data.crop_padding
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(0.5 if spec.data.flip else 0.0),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean, dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]
