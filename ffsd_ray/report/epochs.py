"""A run's accuracies epoch by epoch: what training curves show."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ffsd_ray.errors import RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import Row as Measured
from ffsd_ray.report.curves import SERIES
from ffsd_ray.report.row import Cell, Row
from ffsd_ray.report.scores import series
from ffsd_ray.report.table import Table

#: The headline's accuracy on the images that it is trained on, beside the table's columns.
TRAINING = "Training images"
#: More panels than this nobody reads.
_PANELS = 24


@dataclass(frozen=True)
class Panel:
    """A configuration: accuracy in percent after each epoch, by column of the run's table."""

    name: str
    curves: dict[str, dict[int, Cell]]


@dataclass(frozen=True)
class TrainingCurves:
    """Mean and standard deviation over the completed seeds that came as far."""

    title: str
    captions: tuple[str, ...]
    panels: tuple[Panel, ...]


def training_curves(run: RunRecords, table: Table) -> TrainingCurves:
    """The completed configurations of `table`, in its order, from their trials' histories, which it was made with.

    Raises:
        RecordsError: no trial has completed.
    """
    rows = [row for row in table.first_epoch.rows if row.seeds]
    with ThreadPoolExecutor(16) as pool:
        panels = list(pool.map(lambda row: _panel(run, row), rows[:_PANELS]))
    if not panels:
        raise RecordsError(f"{table.title}: nothing to plot against epochs: no trial has completed")
    captions = [
        caption for caption in table.captions if not caption.startswith(("Gain: ", "best epoch: ", "Deployed "))
    ]
    captions.append(f"{TRAINING}: the method’s headline column, measured on augmented images while they are trained on")
    if len(rows) > _PANELS:
        captions.append(f"the first {_PANELS} of {len(rows)} configurations; choose others with --where KEY=VALUE")
    return TrainingCurves(
        f"{table.title}: accuracy on the test images after each epoch", tuple(captions), tuple(panels)
    )


def _panel(run: RunRecords, row: Row) -> Panel:
    trials = [run.trial(name) for name in row.trials]
    results = [trial.result() for trial in trials]
    result, histories = results[0], [trial.history_of(ended) for trial, ended in zip(trials, results, strict=True)]
    columns = series(result, row.spec.method)
    keys = {column: f"test/{columns[column]}/top1" for column in SERIES if column in columns}
    keys[TRAINING] = f"train/{result['headline']}/top1"
    drawn = {column: _curve(histories, key) for column, key in keys.items()}
    return Panel(row.configuration, {column: curve for column, curve in drawn.items() if curve})


def _curve(histories: Sequence[Sequence[Measured]], key: str) -> dict[int, Cell]:
    found: dict[int, list[float]] = {}
    for history in histories:
        for measured in history:
            if key in measured:
                found.setdefault(int(measured["epoch"]), []).append(measured[key])
    return {epoch: Cell.of(values) for epoch, values in sorted(found.items())}
