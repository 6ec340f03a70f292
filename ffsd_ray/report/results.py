"""Accuracies of a run's completed trials as one long frame, from which tables and plots are made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.columns import BASELINE, columns_of

Epoch = Literal["best", "last"]
EPOCHS: tuple[Epoch, ...] = ("best", "last")

#: The columns that `_lines` fills, in its order.
_TYPES = {
    "trial": "str",
    "seed": "int64",
    "epoch": "str",
    "column": "str",
    "series": "str",
    "is_primary": "bool",
    "test": "float64",
    "selected": "float64",
    "baseline": "str",
}


def results_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """A line for each completed trial, epoch ("best", "last") and column of accuracies.

    Columns:
        trial, seed: identity and seed of the trial.
        epoch, column, series: which accuracy; `column` as in tables ("Leader"), `series` as in the records ("leader").
        is_primary: whether the series stands for the method.
        test, selected: top-1 in percent on the test images, and on the split that chose the best epochs.
        baseline: identity of the trial's baseline, itself where it is one; missing where that has not completed.
        baseline_test, baseline_selected: accuracies of the baseline at the same kind of epoch.
        gain, gain_selected: differences from these, in percentage points.
    """
    lines = [line for trial in trials if trial.result is not None for line in _lines(trial.spec, trial.result)]
    frame = pd.DataFrame(lines, columns=list(_TYPES)).astype(_TYPES)
    baselines = frame[frame["column"] == BASELINE].set_index(["trial", "epoch"])[["test", "selected"]]
    beside = baselines.add_prefix("baseline_")
    frame = frame.join(beside, on=["baseline", "epoch"])
    frame["baseline"] = frame["baseline"].where(frame["baseline_test"].notna())
    frame["gain"] = frame["test"] - frame["baseline_test"]
    frame["gain_selected"] = frame["selected"] - frame["baseline_selected"]
    return frame


def _lines(spec: TrialSpec, result: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    identity, baseline = spec.identity(), spec.baseline().identity()
    for epoch in EPOCHS:
        for column, series in columns_of(result, spec.method).items():
            best, last = result["best"][series], result["last"]
            test, selected = (
                (best["top1"], best["selected_by"])
                if epoch == "best"
                else (last[f"test/{series}/top1"], last[f"{result['selection']}/{series}/top1"])
            )
            is_primary = series == result["primary_series"]
            yield identity, spec.seed, epoch, column, series, is_primary, test, selected, baseline


def ended(result: Mapping[str, Any]) -> str:
    """How a trial came to its end: "completed", "stopped at 12", "exploited from TRIAL at 5"."""
    return str(result.get("ended", "completed"))
