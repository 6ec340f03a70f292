"""Measure a trained network again, also on other images: python -m ffsd_ray.evaluate model_best.safetensors."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.command import command
from ffsd_ray.config.source.located import put
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.wording import validate
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, DataSettings, Split
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.data.class_folders import labelled_paths, scan
from ffsd_ray.data.decode import decode_named
from ffsd_ray.data.listing import Span
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import DataError
from ffsd_ray.mistakes import draw_mistakes
from ffsd_ray.quality import class_table, quality
from ffsd_ray.series import HistoryRow
from ffsd_ray.terminal import Screen, csv_text
from ffsd_ray.train.meters import AccuracyMeter


class Evaluation(NamedTuple):
    """A network's predictions on images.

    row: `<split>/<member>/<top1 | top5 | loss>`.
    logits, labels: float32 [N, K] and int64 [N], in the images' order.
    """

    row: HistoryRow
    logits: Tensor
    labels: Tensor


@torch.inference_mode()
def evaluate(model: DeployedModel, spec: TrialSpec, images: Split, split: str) -> Evaluation:
    """Predict as the trial `spec` did at the end of an epoch.

    The same threads, batches, memory layout and precision, so on the device of the training the same to the last bit.
    """
    card = model.card
    torch.set_num_threads(spec.scale.worker_threads)
    model.to(memory_format=torch.channels_last)
    meter = AccuracyMeter([card.member], [], len(card.classes), torch.device("cpu"))
    found: list[tuple[Tensor, Tensor]] = []
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
            found.append((logits.float(), labels))
    logits, labels = map(torch.cat, zip(*found, strict=True))
    return Evaluation(meter.read(split), logits, labels)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffsd evaluate", description="Measure a trained network again.")
    parser.add_argument("file", metavar="FILE", help="a trial's model_best.safetensors or model_last.safetensors")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what differs from the recorded data section, such as root=elsewhere; repeatable",
    )
    parser.add_argument("--split", choices=["test", "val", "train"], help="default: the one of the recorded accuracy")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="measure on the pictures in a folder's class folders, all of them"
    )
    parser.add_argument(
        "--mistakes", type=Path, metavar="PNG", help="draw the images that it is most certain of and wrong about"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="CSV", help="write a line an image: label, prediction, its probability"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    model = load_model(arguments.file)
    card = model.card
    split = arguments.split or card.split
    if arguments.images is not None:
        if arguments.data or arguments.split:
            parser.error("--images says what to measure on; --data and --split do not go with it")
        return _on_folder(model, arguments.images, arguments)
    spec = _spec(arguments.file, card.spec, arguments.data)
    if spec.data.known_size not in (None, card.image_size):
        raise DataError(_other_size(card.image_size, spec.data.known_size))
    images = _images(model, data.load(_as_they_are(spec.data), progress=True), split)
    found = evaluate(model, spec, images, split)
    row = found.row
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
    names = [f"{split} {index}" for index in range(len(images))]
    _tell(model, found.logits, found.labels, names, partial(_pixels, images), arguments)
    return 0


def _on_folder(model: DeployedModel, folder: Path, arguments: argparse.Namespace) -> int:
    """Measure on pictures in class folders, whatever the trial was trained on.

    Raises:
        DataError: there are none, or a class folder is none of the network's classes.
    """
    if not folder.is_dir():
        raise DataError(f"--images {folder}: no such folder, expected class folders of images")
    part = scan(folder, may_be_empty=True)
    for note in part.notes:
        print(note)
    pictures = list(labelled_paths(part, list(model.classes), folder, Path("the training images")))
    paths = [path for path, _ in pictures]
    logits = model.logits(paths)
    labels = torch.tensor([label for _, label in pictures])
    top1 = 100 * (logits.argmax(dim=1) == labels).double().mean().item()
    print(f"top-1 {top1:.2f} % of {len(pictures)} images in {folder} ({model.card.member}, epoch {model.card.epoch})")
    size = model.card.image_size
    _tell(model, logits, labels, paths, lambda i: decode_named(Span(paths[i]), paths[i], size), arguments)
    return 0


def _pixels(images: Split, index: int) -> Tensor:
    """Of one image, uint8 [3, S, S], as it is evaluated."""
    [(pixels, _)] = images.unaugmented([slice(index, index + 1)])
    return pixels[0]


def _tell(
    model: DeployedModel,
    logits: Tensor,
    labels: Tensor,
    names: Sequence[str],
    pixels: Callable[[int], Tensor],
    arguments: argparse.Namespace,
) -> None:
    """Print what else the predictions say, and write what is asked for; `names`, `pixels`: of the images."""
    found = quality(logits, labels)
    print(
        f"balanced accuracy {found.balanced:.2f} %, NLL {found.nll:.3f}, calibration error (ECE) {found.ece:.1f} points"
    )
    Screen().print(class_table(found, model.classes))
    if arguments.mistakes is not None:
        count = draw_mistakes(logits, labels, model.classes, pixels, arguments.mistakes)
        print(f"Mistakes: {arguments.mistakes} ({count})" if count else "Mistakes: none to draw")
    if (out := arguments.predictions) is None:
        return
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    rows = zip(names, labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "class", "predicted", "probability"))
        for name, label, prediction, probability in rows:
            texts = (csv_text(text) for text in (name, model.classes[label], model.classes[prediction]))
            writer.writerow((*texts, f"{probability:.4f}"))
    print(f"Predictions: {out}")


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
