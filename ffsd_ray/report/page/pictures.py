"""The pictures of a run's page."""

import re
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from itertools import combinations
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

from ffsd_ray.config.labels import has
from ffsd_ray.config.load import varying
from ffsd_ray.errors import RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.plots.axes import value_of
from ffsd_ray.report.plots.heatmap import heat_map
from ffsd_ray.report.plots.learning_curves import training_curves
from ffsd_ray.report.plots.parallel_coordinates import parallel
from ffsd_ray.report.plots.plot import Picture, draw
from ffsd_ray.report.plots.style import GRID, INK, LOOK, MUTED, PAPER
from ffsd_ray.report.plots.sweep import curves
from ffsd_ray.report.tables.table import Table
from ffsd_ray.terminal import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The page's colours in place of a picture's, so that it is read on dark ground too.
_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--paper)"}
_XLINK = "{http://www.w3.org/1999/xlink}href"
#: A picture with more panels than this says little; --plot and --where draw it or a part of it.
_PANELS = 9

#: A picture and how it looks.
Drawn = tuple[Picture, Markup]


def over_settings(table: Table) -> list[Drawn]:
    """Accuracies over every number that varies, by itself, over each two that make a grid, and over all of three."""
    specs = [row.spec for row in table.rows if row.seeds]
    keys = [
        key
        for key in varying(specs)
        if not any(isinstance(value_of(spec, key), str) for spec in specs if has(spec, key))
    ]
    return [_drawn(shown) for shown in _pictures(table, keys)]


def training(run: RunRecords, table: Table) -> list[Drawn]:
    """Accuracies over epochs; none where no trial has completed."""
    return [_drawn(training_curves(run, table))] if any(row.seeds for row in table.rows) else []


def _pictures(table: Table, keys: list[str]) -> Iterator[Picture]:
    for key in keys:
        with suppress(RecordsError):
            if len((lines := curves(table, key)).panels) <= _PANELS:
                yield lines
    for pair in combinations(keys, 2):
        with suppress(RecordsError):
            if (heat := heat_map(table, pair)).is_grid and len(heat.panels) <= _PANELS:
                yield heat
    if len(keys) > 2:
        with suppress(RecordsError):
            yield parallel(table, keys)


def _drawn(shown: Picture) -> Drawn:
    import matplotlib

    with matplotlib.rc_context(LOOK):
        return shown, svg(draw(shown), shown.title)


def svg(figure: "Figure", title: str) -> Markup:
    """A picture as part of the page: its ids are its own as long as titles differ, and it names nothing outside."""
    import matplotlib

    out = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = plain(out.getvalue())  # XML has no place for control characters
    for colour, own in _COLOURS.items():
        text = text.replace(colour, own)
    root = ElementTree.fromstring(text)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    used = set(re.findall(r"#([\w-]+)", text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    # As large as it was drawn where there is room.
    width = root.attrib.pop("width")
    del root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": title, "style": f"max-width: {width}"}
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))
