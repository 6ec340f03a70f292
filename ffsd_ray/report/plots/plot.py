"""A run's pictures: python -m ffsd_ray.report RUN --plot KEY ..., or --plot epochs."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.plots import heatmap, learning_curves, parallel_coordinates, sweep
from ffsd_ray.report.plots.heatmap import HeatMap, heat_map
from ffsd_ray.report.plots.learning_curves import TrainingCurves, training_curves
from ffsd_ray.report.plots.parallel_coordinates import Parallel, parallel
from ffsd_ray.report.plots.style import LOOK, check_installed, check_picture, dress, write_picture
from ffsd_ray.report.plots.sweep import Curves, curves
from ffsd_ray.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: In place of keys: training curves.
EPOCHS = "epochs"

Picture = Curves | HeatMap | Parallel | TrainingCurves


def plot(run: RunRecords, table: Table, keys: Sequence[str], out: str | None) -> Path:
    """Draw `table`, which is of one epoch of `run`, against `keys`; the file written.

    Raises:
        UserError: matplotlib is missing.
        JobError: trials have no such key, or the file cannot be such a picture.
        RecordsError: the completed trials hold no such picture.
    """
    path = Path(out or f"{run.job()['name']}-{'-'.join(keys)}.png")
    check_picture(path)
    import matplotlib

    with matplotlib.rc_context(LOOK):
        write_picture(figure_of(run, table, keys), path)
    return path


def figure_of(run: RunRecords, table: Table, keys: Sequence[str]) -> "Figure":
    """The picture as a figure with its title and captions, see `plot`."""
    check_installed("matplotlib")
    import matplotlib

    with matplotlib.rc_context(LOOK):
        shown = picture(run, table, keys)
        figure = draw(shown)
        dress(figure, shown.title, shown.captions)
    # Notebooks ask for it: IPython draws figures by itself only where pyplot has made them.
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def picture(run: RunRecords, table: Table, keys: Sequence[str]) -> Picture:
    """One key: lines with error bars; two: a heat map; more: parallel coordinates; `EPOCHS`: training curves."""
    if list(keys) == [EPOCHS]:
        return training_curves(run, table)
    if len(keys) == 1:
        return curves(table, keys[0])
    return heat_map(table, keys) if len(keys) == 2 else parallel(table, keys)


def draw(shown: Picture) -> "Figure":
    """Without title and captions; inside `matplotlib.rc_context(LOOK)`."""
    if isinstance(shown, Curves):
        return sweep.draw(shown)
    if isinstance(shown, HeatMap):
        return heatmap.draw(shown)
    return parallel_coordinates.draw(shown) if isinstance(shown, Parallel) else learning_curves.draw(shown)
