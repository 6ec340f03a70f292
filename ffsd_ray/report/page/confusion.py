"""Confusion matrices: which classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffsd_ray.quality import accuracy_by_class, confusion_of
from ffsd_ray.report.page.figure import Figure, axis, layout, menu, name
from ffsd_ray.report.plots.style import PALETTE, PAPER
from ffsd_ray.report.tables.table import Table

#: Up to so many classes have their numbers in the cells, and their names below the columns.
_NUMBERED, _NAMED = 20, 40
#: Pixels of a matrix, and at least and at most of a row.
_SIDE, _LOW, _HIGH = 560, 12, 56

CAPTIONS = (
    "the deployed network after the last epoch; test images, summed over a configuration’s trials",
    "rows: the true class, with its accuracy; columns: the predicted class, in the same order",
    "colour: the square root of the share of the true class, in which rare mistakes are seen",
)


@dataclass(frozen=True)
class Matrix:
    """The test images of a configuration by true class (rows) and predicted class (columns)."""

    name: str
    classes: tuple[str, ...]
    #: [K, K]: summed over trials.
    counts: NDArray[np.int64]


def matrices(table: Table) -> list[Matrix]:
    """Of the configurations those whose trials have recorded one, of the same classes."""
    found = []
    for row in table.first_epoch.rows:
        named = [result["confusion"] for _, result in row.group.completed if "confusion" in result]
        classes = {tuple(one) for one in named}
        if len(classes) == 1:
            counts = np.sum([confusion_of(one) for one in named], axis=0)
            found.append(Matrix(row.configuration, classes.pop(), counts))
    return found


def figure(shown: Sequence[Matrix]) -> Figure:
    """One matrix, which a menu chooses; all of the same classes."""
    classes, data = shown[0].classes, []
    for index, matrix in enumerate(shown):
        shares = matrix.counts / np.maximum(matrix.counts.sum(axis=1, keepdims=True), 1)
        trace = {
            "type": "heatmap",
            "z": np.sqrt(shares).round(3).tolist(),
            "zmin": 0,
            "zmax": 1,
            "colorscale": [[0, PAPER], [1, PALETTE[1]]],
            "showscale": False,
            "customdata": matrix.counts.tolist(),
            "hovertemplate": "true: %{y}<br>predicted: %{x}<br>%{customdata} images<extra></extra>",
            "visible": index == 0,
        }
        if len(classes) <= _NUMBERED:
            numbers = [[str(count) if count else "" for count in row] for row in matrix.counts.tolist()]
            trace |= {"text": numbers, "texttemplate": "%{text}", "xgap": 1, "ygap": 1}
        data.append(trace)
    side = len(classes) * max(_LOW, min(_HIGH, _SIDE // len(classes)))
    places = {"tickvals": list(range(len(classes))), "showgrid": False}
    small = {"tickfont": {"size": 9}} if len(classes) > _NAMED else {}
    x = axis(
        "Predicted class",
        **places,
        ticktext=[name(label) for label in classes],
        range=[-0.5, len(classes) - 0.5],
        showticklabels=len(classes) <= _NAMED,
    )
    ticks = [_with_accuracies(matrix) for matrix in shown]
    y = axis("True class", **places, **small, ticktext=ticks[0], range=[len(classes) - 0.5, -0.5])
    above = menu([matrix.name for matrix in shown], range(len(shown)), [{"yaxis.ticktext": names} for names in ticks])
    options = {"xaxis": x, "yaxis": y, "showlegend": False, "meta": {"width": 240 + side * 5 // 4}, **above}
    return {"data": data, "layout": layout(180 + side, **options)}


def _with_accuracies(matrix: Matrix) -> list[str]:
    """A label a row; of a class without test images its name alone."""
    accuracies = accuracy_by_class(matrix.counts)
    return [
        name(label if np.isnan(accuracy) else f"{label} ({accuracy:.1f} %)")
        for label, accuracy in zip(matrix.classes, accuracies, strict=True)
    ]
