"""The charts of a run's page."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations

from ffsd_ray.config.labels import has
from ffsd_ray.config.varying import varying
from ffsd_ray.errors import RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.page import confusion, over_epochs, over_settings
from ffsd_ray.report.page.figure import Figure
from ffsd_ray.report.plots.axes import value_of
from ffsd_ray.report.plots.heatmap import heat_map
from ffsd_ray.report.plots.learning_curves import MOST_SHOWN, curves_so_far, of_more
from ffsd_ray.report.plots.parallel_coordinates import parallel
from ffsd_ray.report.plots.sweep import curves
from ffsd_ray.report.tables.table import Table

#: More panels than this say little; --plot and --where draw them or a part of them.
_PANELS = 9


@dataclass(frozen=True)
class Chart:
    """Figures under one title; `captions` are what else is to be known of them."""

    title: str
    captions: tuple[str, ...]
    #: Each with what tells it from the others ('' for an only one).
    figures: tuple[tuple[str, Figure], ...]


def charts_of_settings(table: Table) -> list[Chart]:
    """Accuracies over every number that varies, by itself, over each two that make a grid, and over all of three."""
    specs = [row.spec for row in table.rows if row.seeds]
    keys = [
        key
        for key in varying(specs)
        if not any(isinstance(value_of(spec, key), str) for spec in specs if has(spec, key))
    ]
    return list(_over(table, keys))


def charts_of_epochs(run: RunRecords, table: Table) -> list[Chart]:
    """Accuracies and losses over epochs; none where no epoch has ended."""
    found = curves_so_far(run, table)
    if not found.panels:
        return []
    series = "each method's own: its leader's, its student's, or the mean of its common students"
    tested = f"accuracy on the test images, {series}"
    trained = f"cross-entropy with the labels on augmented training images, {series}"
    accuracies, losses = over_epochs.accuracies(found.panels), over_epochs.losses(found.panels)
    charts = []
    # Where only the last epoch is evaluated, the tables have it.
    if any(len(panel.accuracy) > 1 for panel in found.panels):
        title = f"{table.title}: test accuracy after each epoch"
        charts.append(Chart(title, (tested, *found.captions), (("", accuracies),)))
    if any(panel.loss for panel in found.panels):
        title = f"{table.title}: training loss of each epoch"
        charts.append(Chart(title, (trained, *found.captions), (("", losses),)))
    several = sorted((panel for panel in found.panels if len(panel.curves) > 1), key=lambda panel: panel.is_baseline)
    if several:
        title = f"{table.title}: members of a group after each epoch"
        charts.append(Chart(title, found.captions, (("", over_epochs.members(several)),)))
    return charts


def charts_of_classes(table: Table) -> list[Chart]:
    """Test images by true and predicted class; none where no trial has recorded them. One figure for each data set."""
    found = confusion.matrices(table)
    if not found:
        return []
    of_classes: dict[tuple[str, ...], list[confusion.Matrix]] = {}
    for matrix in found[:MOST_SHOWN]:
        of_classes.setdefault(matrix.classes, []).append(matrix)
    several = len(of_classes) > 1
    figures = tuple(
        (f"{len(classes)} classes: {classes[0]} to {classes[-1]}" * several, confusion.figure(some))
        for classes, some in of_classes.items()
    )
    title = f"{table.title}: test images by true and predicted class"
    told = table.captions_without("accuracy", "best epoch", "ensembles", "gain")
    return [Chart(title, (*confusion.CAPTIONS, *told, *of_more(len(found))), figures)]


def _over(table: Table, keys: list[str]) -> Iterator[Chart]:
    for key in keys:
        with suppress(RecordsError):
            if len((lines := curves(table, key)).panels) <= _PANELS:
                yield Chart(lines.title, lines.captions, (("", over_settings.sweep(lines)),))
    for pair in combinations(keys, 2):
        with suppress(RecordsError):
            if (heat := heat_map(table, pair)).is_grid and len(heat.panels) <= _PANELS:
                maps = tuple((panel.title, over_settings.heat_map(heat, panel)) for panel in heat.panels)
                yield Chart(heat.title, heat.captions, maps)
    if len(keys) > 2:
        with suppress(RecordsError):
            shown = parallel(table, keys)
            yield Chart(shown.title, shown.captions, (("", over_settings.parallel(shown)),))
