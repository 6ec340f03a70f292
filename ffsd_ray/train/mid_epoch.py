"""The progress of a trial, at the end of an epoch and inside one."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ffsd_ray.series import HistoryRow


@dataclass
class Progress:
    """The progress of a trial: the part of a checkpoint besides networks and optimisers."""

    rows: list[HistoryRow] = field(default_factory=list)
    #: For every series the epoch of its best top-1 on the selection split, and its test top-1 then.
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    #: The deployed member's weights at its best epoch.
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    #: [K, K]: test images by true and by predicted class, of the deployed member after the last of the rows; None where
    #: that was not evaluated, or there are too many classes.
    confusion: Tensor | None = None
    #: Each time that this state was taken over from another trial: its identity (`from`), after which `epoch` of its,
    #: and the settings `changed` from then on.
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rows", "best", "best_weights", "confusion", "lineage")}

    def add(self, row: HistoryRow, selection: str) -> set[str]:
        """Add an epoch's row; return the series that had their best top-1 on the split `selection` in it."""
        self.rows.append(row)
        prefix, suffix = f"{selection}/", "/top1"
        improved = set()
        for key, value in row.items():
            if not (key.startswith(prefix) and key.endswith(suffix)):
                continue
            series = key.removeprefix(prefix).removesuffix(suffix)
            best = self.best.get(series)
            if best is None or value > best["selected_by"]:
                self.best[series] = {"epoch": row["epoch"], "selected_by": value, "top1": row[f"test/{series}/top1"]}
                improved.add(series)
        return improved


@dataclass(frozen=True)
class MidEpochState:
    """The progress inside an unfinished epoch."""

    epoch: int
    steps: int
    seconds: float
    terms: dict[str, Any]
    accuracy: dict[str, Any]
