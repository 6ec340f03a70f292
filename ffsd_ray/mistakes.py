"""A picture of the images that a network is most certain of and wrong about."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ffsd_ray.terminal import plain

#: Images in the picture, and in a row of it.
_MOST, _COLUMNS = 24, 6
#: Of an image in pixels, and of the two lines below it.
_SIDE, _LINE, _GAP = 128, 15, 8
#: Letters of a class's name that are shown.
_LONGEST = 16


def most_certain(logits: Tensor, labels: Tensor) -> list[int]:
    """Indices of the wrongly classified images, the most certain first, at most 24; `logits` [N, K], `labels` [N]."""
    certainty, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero()[:, 0]
    return [int(index) for index in wrong[certainty[wrong].argsort(descending=True)][:_MOST]]


def draw_mistakes(
    logits: Tensor, labels: Tensor, classes: Sequence[str], pixels: Callable[[int], Tensor], out: Path
) -> int:
    """Write the picture, in the format of `out`'s ending; return how many images are in it, 0 without one.

    Below each image stand its class and what it is taken for, with the probability.

    Args:
        logits, labels: of all images, [N, K] and [N].
        classes: their names.
        pixels: of the image with an index, uint8 RGB [3, S, S].
        out: the file.
    """
    chosen = most_certain(logits, labels)
    if not chosen:
        return 0
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    columns, rows = min(_COLUMNS, len(chosen)), -(-len(chosen) // _COLUMNS)
    width, height = _SIDE + _GAP, _SIDE + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, index in enumerate(chosen):
        left, top = _GAP + place % _COLUMNS * width, _GAP + place // _COLUMNS * height
        image = Image.fromarray(pixels(index).permute(1, 2, 0).contiguous().numpy())
        sheet.paste(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top))
        texts = (
            f"{_short(classes[int(labels[index])])}, not",
            f"{_short(classes[int(predicted[index])])} {100 * float(probabilities[index]):.0f} %",
        )
        for line, text in enumerate(texts):
            pen.text((left, top + _SIDE + line * _LINE), text, "black", font)
    sheet.save(out)
    return len(chosen)


def _short(name: str) -> str:
    name = plain(name, keep="")
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
