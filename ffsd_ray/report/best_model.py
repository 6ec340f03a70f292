"""The deployed network of a run's best trial, beside its trials."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import MODEL_BEST
from ffsd_ray.report.plots.style import INSTALL, missing
from ffsd_ray.report.ranking import best, ranked_by
from ffsd_ray.report.tables.table import Table
from ffsd_ray.storage import is_uri

#: In a run's folder.
BEST_MODEL = "best.safetensors"


class Best(NamedTuple):
    """A run's best trial."""

    identity: str
    """Its folder's name."""
    label: str
    chosen: str
    """By what its configuration is the best."""


def best_trial(run: RunRecords, table: Table) -> Best | None:
    """The best trial of the best configuration at its best epoch, both by the images that chose the epochs.

    None where no trial has completed, or the epochs of some were chosen on validation and of some on test images.
    """
    row = best(table.at("best"))
    if row is None:
        return None
    results = {identity: run.trial(identity).result() for identity in row.trials}
    reached = {name: result["best"][result["primary_series"]]["selected_by"] for name, result in results.items()}
    identity = max(reached, key=reached.__getitem__)
    return Best(identity, run.labels(run.specs().values())[identity], ranked_by(row))


def keep_best_model(run: RunRecords, table: Table) -> Best | None:
    """Copy the best trial's network to the run's folder; None where there is none, or it has no weights."""
    found = best_trial(run, table)
    if found is None:
        return None
    records = run.trial(found.identity).store
    if not records.exists(MODEL_BEST):
        return None
    run.store.write(BEST_MODEL, records.read(MODEL_BEST))
    return found


def outcome(run: RunRecords, found: Best | None) -> Iterator[str]:
    """Where a run's records and its best model are, and the commands that go on from there, a line each.

    `found`: as `keep_best_model` returned it.
    """
    folder = run.store.location
    yield f"Records: {folder}"
    if found is not None:
        yield f"Best model: {folder}/{BEST_MODEL} ({found.label}: {found.chosen})"
    first = f"  (after {INSTALL})" if missing("plotly") else ""
    yield f"Next: ffsd report {shlex.quote(folder)} --html {shlex.quote(f'{run.store.name}.html')}{first}"
    if found is not None and not is_uri(folder):
        model = shlex.quote(f"{folder}/{BEST_MODEL}")
        yield f"      ffsd classify {model} PICTURE"
        yield f"      ffsd evaluate {model}"
