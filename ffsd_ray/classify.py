"""Classify pictures with a deployed model: python -m ffsd_ray.classify model_best.safetensors picture.jpg ..."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ffsd_ray.command import command
from ffsd_ray.data.decode import Span, decode_named
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import DataError


@torch.inference_mode()
def classify(model: DeployedModel, picture: Path, top: int = 3) -> list[tuple[str, float]]:
    """The most probable classes of a picture, each with its probability, best first.

    Raises:
        DataError: the file is missing, or not such a picture.
        RecordsError: the network computes no probabilities.
    """
    pixels = decode_named(Span(str(picture)), str(picture), None)
    probabilities = model.finite(model.preprocess(pixels)[None]).softmax(dim=1)[0]
    best = probabilities.topk(min(top, len(model.classes)))
    return [(model.classes[index], p) for p, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ffsd_ray.classify", description="Name what a trained network sees in pictures, one line each."
    )
    parser.add_argument("file", metavar="FILE", help="a trial's model_best.safetensors")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="pictures (JPEG, PNG, WebP, ...)")
    arguments = parser.parse_args(argv)
    networks = [str(image) for image in arguments.images if image.suffix == ".safetensors"]
    if networks:
        raise DataError(
            f"{', '.join([arguments.file, *networks])}: {1 + len(networks)} networks, expected one, then pictures; "
            "each trial of a run has its own"
        )
    model = load_model(arguments.file)
    for picture in arguments.images:
        named = ", ".join(f"{name} {probability:.1%}" for name, probability in classify(model, picture))
        print(f"{picture}: {named}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
