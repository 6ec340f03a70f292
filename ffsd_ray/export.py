"""A trained network for other runtimes: ffsd export model_best.safetensors [--format onnx|torchscript|program]."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ffsd_ray.command import command, parse_positional
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import UserError

#: Largest difference allowed between the exported and the original logits, relative to the largest logit above 1.
TOLERANCE = 1e-5

#: What an exported network computes: images float32 [B, 3, S, S], normalised, to logits [B, K].
Run = Callable[[Tensor], Tensor]


def export_onnx(model: DeployedModel, out: Path) -> float:
    """Write `model` as ONNX and return the largest difference between its logits under onnxruntime and torch.

    Input `images`: float32 [batch, 3, S, S], normalised; output `logits` [batch, K]. The file's metadata are those of
    `_metadata`. Nothing is written unless they agree.

    Raises:
        UserError: the packages for it are not installed, or the network's logits are not finite.
        RuntimeError: the exported network computes something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise UserError(f'{error}; exporting needs extra packages: pip install "ffsd-ray[onnx]"') from error
    program = torch.onnx.export(
        model,
        (_images(model),),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(_metadata(model))
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = _difference(model, lambda batch: torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]))
    out.write_bytes(content)
    return worst


def export_torchscript(model: DeployedModel, out: Path) -> float:
    """Write `model` as TorchScript, for torch's C++ and mobile runtimes, and return the largest difference.

    `_metadata` are extra files in it. Errors as of `export_onnx`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = torch.jit.trace(model, _images(model))
        worst = _difference(model, traced)
        torch.jit.save(traced, out, _extra_files=_metadata(model))
    return worst


def export_program(model: DeployedModel, out: Path) -> float:
    """Write `model` as a program of torch.export, for `torch.export.load`, and return the largest difference.

    `_metadata` are extra files in it. Errors as of `export_onnx`.
    """
    program = torch.export.export(model, (_images(model),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    worst = _difference(model, program.module())
    torch.export.save(program, out, extra_files=_metadata(model))
    return worst


#: By --format: what writes it, and the ending of its files.
FORMATS = {
    "onnx": (export_onnx, ".onnx"),
    "torchscript": (export_torchscript, ".pt"),
    "program": (export_program, ".pt2"),
}


def _images(model: DeployedModel) -> Tensor:
    size = model.card.image_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def _metadata(model: DeployedModel) -> dict[str, str]:
    """What a user of the file must know: `classes`, `mean` and `std` (JSON; of pixels in [0, 1]) and `image_size`."""
    card = model.card
    return {
        "classes": json.dumps(card.classes, ensure_ascii=False),
        "mean": json.dumps(card.mean),
        "std": json.dumps(card.std),
        "image_size": str(card.image_size),
    }


@torch.inference_mode()
def _difference(model: DeployedModel, run: Run) -> float:
    """The largest difference of the logits, on three images and on one. Raises RuntimeError: more than rounding."""
    worst, images = 0.0, _images(model)
    for batch in (images, images[:1]):
        expected = model.finite(batch)
        difference = (run(batch) - expected).abs().max().item()
        if difference > TOLERANCE * max(1.0, expected.abs().max().item()):
            raise RuntimeError(f"the exported network's logits differ from the original's by {difference:.1e}")
        worst = max(worst, difference)
    return worst


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffsd export", description="Write a trained network for other runtimes.")
    parser.add_argument("file", metavar="FILE", type=Path, help="a trial's model_best.safetensors")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx; program: torch.export's")
    parser.add_argument("--out", metavar="OUT", type=Path, help="default: FILE with .onnx, .pt or .pt2")
    parser.add_argument("--onnx", metavar="OUT", type=Path, nargs="?", const=Path(), help="the same as --out OUT")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parse_positional(parser, argv, "file", "onnx")
    export, ending = FORMATS[arguments.format]
    if arguments.onnx is not None and arguments.format != "onnx":
        parser.error(f"--onnx does not go with --format {arguments.format}")
    given = arguments.out or arguments.onnx
    out = arguments.file.with_suffix(ending) if given in (None, Path()) else given
    model = load_model(arguments.file)
    try:
        difference = export(model, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    print(f"{out}: agrees with {arguments.file} (largest difference of the logits {difference:.1e})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
