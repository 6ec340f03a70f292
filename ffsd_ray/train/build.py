"""Building a trial's group and its batches from its spec."""

from dataclasses import replace
from functools import cache

import torch

from ffsd_ray import data
from ffsd_ray.backbones import LIBRARIES, UnfitImages, backbone, library_model, map_shapes
from ffsd_ray.config.inspection.flops import meta_group, phase_losses, structure
from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.data.batches import TrainBatches, last_batch
from ffsd_ray.data.regularisation import Regularisation
from ffsd_ray.errors import TrialError
from ffsd_ray.meta_device import meta_device
from ffsd_ray.methods import METHODS, Blueprint, MapShapes, Method, MethodSettings, TrainedOn
from ffsd_ray.series import ANY, LOGITS, MEAN
from ffsd_ray.train import optimisers


def build_method(spec: TrialSpec, classes: int, image_size: int, data: Dataset | None = None) -> Method:
    """Build the trial's group, initialised from its seed; `data`: the images that a teacher from a file must fit.

    Raises:
        TrialError: the method cannot work with this backbone on such images, or names a primary series that it has not.
    """
    build, shapes = backbone(spec.backbone.name), checked_shapes(spec, image_size)
    optimisers.seed_everything(spec.seed)
    trained_on = TrainedOn(spec.data.name, data.classes, data.mean, data.std) if data is not None else None
    blueprint = Blueprint(build, shapes, classes, spec.train.precision, trained_on)
    method = METHODS[spec.method.name](spec.method, blueprint)
    series = [*method.members, *([MEAN, ANY, LOGITS] if method.common else [])]
    if spec.method.primary_series not in series:
        problem = f"its primary_series should be one of {', '.join(series)}, and is {spec.method.primary_series}"
        raise TrialError(f"method.name = {spec.method.name}: {problem}")
    return method


def checked_shapes(spec: TrialSpec, size: int) -> MapShapes:
    """Shapes of the backbone's feature maps for images of this side length.

    Raises:
        TrialError: it does not take them, or its maps do not suit the method.
    """
    try:
        shapes = map_shapes(backbone(spec.backbone.name), size)
    except UnfitImages as error:
        raise TrialError(f"backbone.name = {spec.backbone.name}: {error}; data.image_size scales them") from error
    for problem in spec.method.problems(shapes):
        raise TrialError(f"method.{'.'.join(problem.key)} = {problem.value}: {problem.expected}")
    return shapes


def load_images(spec: TrialSpec, *, progress: bool = False) -> Dataset:
    """The trial's images, as its group sees them: read, checked, and normalised for it."""
    return normalised_for(spec, data.load(spec.data, progress=progress))


def normalised_for(spec: TrialSpec, dataset: Dataset) -> Dataset:
    """The images, normalised as a library's own starting weights expect where the job does not say how."""
    library = library_model(spec.backbone.name) if spec.backbone.weights == "default" else None
    if library is None:
        return dataset
    name, model = library
    mean, std = LIBRARIES[name].default_normalisation(model)
    mean, std = (getattr(spec.data, key, None) or value for key, value in (("mean", mean), ("std", std)))
    text = " and ".join(", ".join(f"{value:g}" for value in values) for values in (mean, std))
    note = f"Images are normalised as the starting weights expect, by mean and deviation {text}."
    return replace(dataset, mean=mean, std=std, notes=(*dataset.notes, note))


def train_batches(
    spec: TrialSpec,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    *,
    views: int,
    rank: int = 0,
    world_size: int = 1,
) -> TrainBatches:
    """Build the trial's stream of training batches, or a worker's share of it, on the device."""
    return TrainBatches(
        dataset.train.to(device),
        dataset.mean,
        dataset.std,
        crop_padding=spec.data.crop_padding,
        flip=spec.data.flip,
        batch_size=spec.train.batch_size,
        seed=spec.seed,
        rank=rank,
        world_size=world_size,
        views=views,
        steps_per_epoch=spec.train.steps_per_epoch,
        join_last=joins_last_batch(spec, len(dataset.train), dataset.num_classes, dataset.image_size),
        regularisation=_regularisation(spec.train, dataset.num_classes),
        balanced=spec.train.balanced,
        trivial_augment=spec.train.augment == "trivial",
    )


def _regularisation(settings: TrainSettings, classes: int) -> Regularisation | None:
    regularisation = Regularisation(
        classes, settings.label_smoothing, settings.mixup, settings.cutmix, settings.random_erasing
    )
    return regularisation if any(regularisation[1:]) else None


def joins_last_batch(spec: TrialSpec, images: int, classes: int, size: int) -> bool:
    """Whether the images of an epoch's last batch join the batch before.

    They do where a worker, or a part of an elastic batch, would get one image or none, of which the group cannot be
    trained: batch norm needs two values of a channel. A worker without an image takes part with one that does not count
    (`TrainBatches`), which synchronised batch norm would count.
    """
    shares, last = spec.scale.most_workers, last_batch(images, spec.train.batch_size)
    if last >= 2 * shares:
        return False
    if last < shares and spec.train.batch_norm == "sync":
        return True
    return not _trains_on_one_image(structure(spec.method), spec.backbone.name, classes, size)


@cache
def _trains_on_one_image(method: MethodSettings, name: str, classes: int, size: int) -> bool:
    """Whether a group's losses of a single image exist, as far as is known without training."""
    with meta_device():
        group = meta_group(method, name, classes, size)
    return phase_losses(group, 1, size) is not None
