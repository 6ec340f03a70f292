"""The pictures of a run's page."""

from collections.abc import Iterator
from itertools import combinations
from xml.etree.ElementTree import Element

from ffsd_ray.config.labels import has
from ffsd_ray.config.load import varying
from ffsd_ray.errors import DamagedRecords, RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.page.markup import svg, tag
from ffsd_ray.report.plots.axes import value_of
from ffsd_ray.report.plots.heatmap import heat_map
from ffsd_ray.report.plots.learning_curves import training_curves
from ffsd_ray.report.plots.parallel_coordinates import parallel
from ffsd_ray.report.plots.plot import Picture, draw
from ffsd_ray.report.plots.style import LOOK
from ffsd_ray.report.plots.sweep import curves
from ffsd_ray.report.tables.table import Table

#: A picture with more panels than this says little; --plot and --where draw it or a part of it.
_PANELS = 9


def over_settings(table: Table) -> list[Element]:
    """Accuracies over every number that varies, by itself, over each two that make a grid, and over all of three."""
    specs = [row.spec for row in table.rows if row.seeds]
    keys = [
        key
        for key in varying(specs)
        if not any(isinstance(value_of(spec, key), str) for spec in specs if has(spec, key))
    ]
    return [_figure(shown) for shown in _pictures(table, keys)]


def training(run: RunRecords, table: Table) -> list[Element]:
    try:
        return [_figure(training_curves(run, table))]
    except DamagedRecords:
        raise
    except RecordsError:
        return []


def _pictures(table: Table, keys: list[str]) -> Iterator[Picture]:
    for key in keys:
        try:
            lines = curves(table, key)
        except RecordsError:
            continue
        if len(lines.panels) <= _PANELS:
            yield lines
    for pair in combinations(keys, 2):
        try:
            heat = heat_map(table, pair)
        except RecordsError:
            continue
        if heat.is_grid and len(heat.panels) <= _PANELS:
            yield heat
    if len(keys) > 2:
        try:
            yield parallel(table, keys)
        except RecordsError:
            return


def _figure(shown: Picture) -> Element:
    """With all captions, though the tables have most of them: a picture is copied alone."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        drawn = svg(draw(shown), shown.title)
    caption = tag("figcaption", tag("strong", shown.title), *(tag("span", caption) for caption in shown.captions))
    return tag("figure", tag("div", drawn, class_="wide"), caption)
