"""A trained network for other runtimes: python -m ffsd_ray.export model_best.safetensors --onnx [OUT]."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ffsd_ray.command import command, parse_positional
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import UserError

#: Largest difference allowed between the exported and the original logits, relative to the largest logit above 1.
TOLERANCE = 1e-5


def export_onnx(model: DeployedModel, out: Path) -> float:
    """Write `model` as ONNX and return the largest difference between its logits under onnxruntime and torch.

    Input `images`: float32 [batch, 3, S, S], normalised; output `logits` [batch, K]. The file's metadata hold `classes`
    (JSON), `mean` and `std` (JSON, pixels scaled to [0, 1]) and `image_size`. Nothing is written unless they agree.

    Raises:
        UserError: the packages for it are not installed, or the network's logits are not finite.
        RuntimeError: the exported network computes something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise UserError(f'{error}; exporting needs extra packages: pip install "ffsd-ray[onnx]"') from error
    card = model.card
    images = torch.randn(3, 3, card.image_size, card.image_size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(
        classes=json.dumps(card.classes, ensure_ascii=False),
        mean=json.dumps(card.mean),
        std=json.dumps(card.std),
        image_size=str(card.image_size),
    )
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (images, images[:1]):
        with torch.inference_mode():
            expected = model.finite(batch)
        found = torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0])
        difference = (found - expected).abs().max().item()
        if difference > TOLERANCE * max(1.0, expected.abs().max().item()):
            raise RuntimeError(f"the exported network's logits differ from the original's by {difference:.1e}")
        worst = max(worst, difference)
    out.write_bytes(content)
    return worst


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ffsd export", description="Write a trained network for other runtimes.")
    parser.add_argument("file", metavar="FILE", type=Path, help="a trial's model_best.safetensors")
    parser.add_argument(
        "--onnx", metavar="OUT", type=Path, nargs="?", const=Path(), required=True, help="default: FILE with .onnx"
    )
    arguments = parse_positional(parser, argv, "file", "onnx")
    model = load_model(arguments.file)
    out = arguments.file.with_suffix(".onnx") if arguments.onnx == Path() else arguments.onnx
    try:
        difference = export_onnx(model, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    print(f"{out}: agrees with {arguments.file} under onnxruntime (largest difference of the logits {difference:.1e})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
