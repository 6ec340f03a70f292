"""What predictions are worth, against figures by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ffsd_ray.mistakes import draw_mistakes, most_certain
from ffsd_ray.quality import class_table, confusion_of, named_confusion, quality


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_a_recorded_confusion_is_read_again() -> None:
    counts = torch.tensor([[2, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert confusion_of(named := named_confusion(counts, ["a", "b", "c"])).tolist() == counts.tolist()
    assert named == {"a": {"a": 2, "b": 1}, "b": {"b": 1}, "c": {}}
    assert named_confusion(counts, ["a", "b", "a"]) == {}, "whose rows would become one"


def test_by_hand() -> None:
    """Three images of class 0, one of class 1, none of class 2."""
    found = quality(
        logits_of([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]]), torch.tensor([0, 0, 0, 1])
    )
    assert found.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert found.images.tolist() == [3, 1, 0]
    assert found.by_class[:2].tolist() == pytest.approx([200 / 3, 100])
    assert np.isnan(found.by_class[2])
    assert found.balanced == pytest.approx((200 / 3 + 100) / 2), "of the classes that have images"
    assert found.nll == pytest.approx(-(math.log(0.8) + math.log(0.6) + math.log(0.2) + math.log(0.6)) / 4)
    # bins of 1/15: 0.8 right alone; 0.6 twice, both right, in one; 0.7 wrong
    assert found.ece == pytest.approx(100 * (0.2 + 2 * 0.4 + 0.7) / 4)


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(40_000, generator=generator, dtype=torch.float64)
    labels = (torch.rand(40_000, generator=generator, dtype=torch.float64) > share).long()
    assert quality(torch.stack([share, 1 - share], dim=1).log(), labels).ece < 1.0
    assert quality(torch.stack([share, 1 - share], dim=1).log() * 5, labels).ece > 10


def test_the_worst_classes_come_first() -> None:
    found = quality(logits_of([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]), torch.tensor([0, 0, 1]))
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(class_table(found, ["a cat", "a dog"]))
    lines = [line.split("  ") for line in console.export_text().splitlines()]
    texts = [[part.strip() for part in line if part.strip()] for line in lines]
    assert texts[1:] == [["a cat", "2", "50.0 %", "a dog (1)"], ["a dog", "1", "100.0 %"]]


def test_of_many_classes_the_worst_are_shown() -> None:
    labels = torch.arange(40)
    logits = torch.eye(40) * 5
    logits[35] = logits[3]
    table = class_table(quality(logits, labels), [f"c{index}" for index in range(40)])
    assert table.row_count == 30
    assert table.caption == "The worst 30 of 40 classes."
    assert next(iter(table.columns[0].cells)) == "c35"


def test_the_most_certain_mistakes_are_drawn(tmp_path: Path) -> None:
    """Wrong ones alone, the most certain first, each the image that it is of."""
    logits = torch.tensor([[5.0, 0], [0, 1], [3, 0], [0, 4], [1, 0]])
    labels = torch.tensor([0, 0, 1, 0, 1])
    assert most_certain(logits, labels) == [3, 2, 1, 4]
    colours = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 0], [0, 90, 90]], dtype=torch.uint8)
    out = tmp_path / "mistakes.png"
    names = ["cat\x1b[2J", "d" * 40]
    assert draw_mistakes(logits, labels, names, lambda i: colours[i, :, None, None].expand(3, 8, 8), out) == 4
    with Image.open(out) as sheet:
        corners = [sheet.convert("RGB").getpixel((10 + place * 136, 10)) for place in range(4)]
    assert corners == [tuple(colours[index].tolist()) for index in (3, 2, 1, 4)]
    assert draw_mistakes(logits[:1], labels[:1], ["a", "b"], lambda i: colours[i], tmp_path / "none.png") == 0
    assert not (tmp_path / "none.png").exists()
