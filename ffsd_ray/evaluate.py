"""Measure a trained network again: python -m ffsd_ray.evaluate model_best.safetensors [--data root=elsewhere]."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ffsd_ray import data
from ffsd_ray.command import command
from ffsd_ray.config.source.located import put
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.wording import validate
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, DataSettings, Split
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.data.streaming import StreamableSettings
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import DataError
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.meters import AccuracyMeter


@torch.inference_mode()
def evaluate(model: DeployedModel, spec: TrialSpec, images: Split, split: str) -> HistoryRow:
    """`<split>/<member>/<top1 | top5 | loss>`, computed as the trial `spec` did at the end of an epoch.

    The same threads, batches, memory layout and precision, so on the device of the training the same to the last bit.
    """
    card = model.card
    torch.set_num_threads(spec.scale.worker_threads)
    model.to(memory_format=torch.channels_last)
    meter = AccuracyMeter([card.member], [], len(card.classes), torch.device("cpu"))
    for rank in range(spec.scale.most_workers):
        batches = EvalBatches(
            images,
            card.mean,
            card.std,
            batch_size=spec.train.eval_batch_size,
            rank=rank,
            world_size=spec.scale.most_workers,
        )
        for inputs, labels in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=card.precision == "bf16"):
                logits = model.finite(inputs)
            meter.update({card.member: logits.float()}, labels)
    return meter.read(split)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.evaluate", description="Measure a trained network again.")
    parser.add_argument("file", metavar="FILE", help="a trial's model_best.safetensors or model_last.safetensors")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what differs from the recorded data section, such as root=elsewhere; repeatable",
    )
    parser.add_argument("--split", choices=["test", "val", "train"], help="default: the one of the recorded accuracy")
    arguments = parser.parse_args(argv)
    model = load_model(arguments.file)
    card = model.card
    split = arguments.split or card.split
    spec = _spec(arguments.file, card.spec, arguments.data)
    if spec.data.known_size not in (None, card.image_size):
        raise DataError(_other_size(card.image_size, spec.data.known_size))
    images = _images(model, data.load(_as_they_are(spec.data), progress=True), split)
    row = evaluate(model, spec, images, split)
    top1 = row[f"{split}/{card.member}/top1"]
    print(f"top-1 {top1:.2f} % of {len(images)} {split} images ({card.member}, epoch {card.epoch})")
    if f"{split}/{card.member}/top5" in row:
        print(f"top-5 {row[f'{split}/{card.member}/top5']:.2f} %")
    if split != card.split:
        print(f"recorded: {card.top1:.2f} % of the {card.split} images, so there is nothing to compare with")
    elif top1 == card.top1:
        print(f"recorded: {card.top1:.2f} %: the same")
    else:
        print(f"recorded: {card.top1:.2f} %: differs by {top1 - card.top1:+.4f}")
    return 0


def _as_they_are(settings: DataSettings) -> DataSettings:
    """The settings of images that need not be those of the training; where they are not, that is said.

    Raises:
        DataError: they cannot be read.
    """
    if not isinstance(settings, StreamableSettings) or settings.fingerprint is None:
        return settings
    found = settings.changed(fingerprint=None).with_fingerprint(progress=True)
    if found.fingerprint != settings.fingerprint:
        print("These are not the images of the training: their fingerprint is another, so accuracies may differ.")
    return found


def _spec(file: str, recorded: dict[str, Any], assignments: Sequence[str]) -> TrialSpec:
    """The recorded spec with `key=value` of the data section put in. Raises JobError."""
    problems = Problems()
    spec = parse(json.dumps(recorded), lambda line, column: Place(file), problems)
    for assignment in assignments:
        place = Place(f"--data {assignment}")
        key, equals, text = assignment.partition("=")
        value = parse(text, lambda line, column, place=place: place, problems)  # type: ignore[misc]
        if not equals:
            problems.add(place, "", "Should be KEY=VALUE, such as --data root=elsewhere.")
        elif spec is not None and value is not None:
            spec = put(spec, ("data", *key.split(".")), value)
    valid = validate(TrialSpec, spec, problems) if spec is not None else None
    problems.check()
    assert valid is not None
    return valid


def _images(model: DeployedModel, dataset: Dataset, split: str) -> Split:
    """The split's images, of the classes and the size that the network was trained on. Raises DataError."""
    card = model.card
    if dataset.classes != card.classes:
        raise DataError(f"--data: expected the classes {_some(card.classes)}; these are {_some(dataset.classes)}")
    if dataset.image_size != card.image_size:
        raise DataError(_other_size(card.image_size, dataset.image_size))
    images: Split | None = getattr(dataset, split)
    if images is None:
        raise DataError("--split val: the data section holds no validation images out (validation is 0)")
    return images


def _other_size(wanted: int, found: int | None) -> str:
    return f"--data: expected images of {wanted}×{wanted} pixels; these have {found}×{found}"


def _some(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5])
    return shown if len(classes) <= 5 else f"{shown}, … ({len(classes)})"


if __name__ == "__main__":
    sys.exit(main())
