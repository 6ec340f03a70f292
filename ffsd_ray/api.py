"""Jobs and runs from Python: `fit` trains a job, `open_run` opens the records of one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from ffsd_ray.config.load import load_job, parse_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.deployed import DeployedModel, load_model
from ffsd_ray.errors import MissingRecords, RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import MODEL_BEST, MODEL_LAST, TrialRecords
from ffsd_ray.report.best_model import best_trial, keep_best_model
from ffsd_ray.report.collect import collect
from ffsd_ray.report.page.build import write_page
from ffsd_ray.report.plots.plot import figure_of
from ffsd_ray.report.results import EPOCHS, Epoch
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import Table, result_table
from ffsd_ray.terminal import Screen, plain
from ffsd_ray.train_job import train_job

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trial:
    """A trial of a run, and its records."""

    def __init__(self, spec: TrialSpec, label: str, records: TrialRecords) -> None:
        self.spec, self.label, self.records = spec, label, records

    def __repr__(self) -> str:
        return f"Trial {self.spec.identity()}: {self.label}, {self.records.state()}"

    @property
    def result(self) -> dict[str, Any]:
        """What it reached. Raises RecordsError where it has not completed."""
        return self.records.result()

    def history(self) -> pd.DataFrame:
        """A line an epoch, with the columns of history.parquet."""
        return pd.DataFrame(self.records.history())

    def load(self, epoch: Epoch = "best") -> DeployedModel:
        """The deployed network, of its best or its last epoch, in evaluation mode on the CPU.

        Raises:
            RecordsError: the trial has not completed, or its records are not in a folder of this machine.
        """
        return load_model(Path(self.records.store.location) / (MODEL_BEST if epoch == "best" else MODEL_LAST))


class Run:
    """The trials of a run and what they reached, as its records hold them at the moment of each call."""

    def __init__(self, records: RunRecords) -> None:
        self.records = records

    def __repr__(self) -> str:
        states = [trial.records.state() for trial in self]
        return f"Run {self.records.store.location}: {states.count('completed')} of {len(states)} trials completed"

    def _repr_html_(self) -> str:
        """The summary that the command prints, for notebooks."""
        summary = Summary(self._table(None))
        text = summary.text()
        rows = [[plain(cell) for cell in row] for section in text.sections for row in section.rows]
        table = pd.DataFrame(rows, columns=list(text.head)).to_html(index=False, border=0)
        told = [f"<p>{escape(plain(line))}</p>" for line in (repr(self), *filter(None, [summary.verdict()]))]
        notes = "<br>".join(escape(plain(line)) for line in (*summary.captions, *text.notes))
        return f"{''.join(told)}{table}<p><small>{notes}</small></p>"

    def __iter__(self) -> Iterator[Trial]:
        """The trials in the job's order."""
        specs = self.records.specs()
        labels = self.records.labels(specs.values())
        for identity, spec in specs.items():
            yield Trial(spec, labels[identity], self.records.trial(identity))

    @property
    def trials(self) -> list[Trial]:
        return list(self)

    def results(self) -> pd.DataFrame:
        """A line a trial: its label, the settings in which trials differ, its state, and what it reached.

        `best` and `last` are the top-1 accuracy in percent, on the test images, of the series that stands for the
        method (`series`), at the epoch `best_epoch` and after the last one.
        """
        trials = self.trials
        keys = varying([trial.spec for trial in trials])
        return pd.DataFrame([self._line(trial, keys) for trial in trials])

    def _line(self, trial: Trial, keys: Sequence[str]) -> dict[str, Any]:
        line: dict[str, Any] = {"trial": trial.spec.identity(), "label": trial.label}
        line |= {key: value_at(trial.spec, key) for key in keys} | {"state": trial.records.state()}
        if line["state"] == "completed":
            result = trial.result
            series, reached = result["primary_series"], result["best"][result["primary_series"]]
            line |= {
                "series": series,
                "best": reached["top1"],
                "best_epoch": int(reached["epoch"]),
                "last": result["last"][f"test/{series}/top1"],
                "seconds": result["seconds"],
            }
        return line

    def history(self) -> pd.DataFrame:
        """The trials' histories one below the other, with `trial` and `label` in front."""
        frames = []
        for trial in self:
            with suppress(MissingRecords):  # not begun yet
                frame = trial.history()
                frame.insert(0, "label", trial.label)
                frame.insert(0, "trial", trial.spec.identity())
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def table(self, epoch: Epoch | None = None) -> pd.DataFrame:
        """The table of results, a line a configuration and epoch, as `report --format csv` has it."""
        return self._table(epoch).frame()

    def best(self) -> Trial:
        """The trial of the best configuration that was best itself, by what chose the epochs.

        Raises:
            RecordsError: no trial has completed, or some epochs were chosen on one split and some on another.
        """
        found = best_trial(self.records, self._table("best"))
        if found is None:
            raise RecordsError(f"{self.records.store.location}: there is no best trial yet, or trials do not compare")
        return next(trial for trial in self if trial.spec.identity() == found.identity)

    def plot(self, *keys: str, epoch: Epoch = "best") -> "Figure":
        """A figure of accuracies against one dotted key or several, or with "epochs" the learning curves.

        Raises:
            JobError: trials have no such key.
            RecordsError: there is nothing to draw.
            UserError: matplotlib is missing.
        """
        return figure_of(self.records, self._table(epoch), keys or ("epochs",))

    def page(self, path: str | PathLike[str]) -> Path:
        """Write the run as one HTML page that opens offline."""
        return write_page(self.records, self._table(None), collect(self.records), str(path))

    def _table(self, epoch: Epoch | None) -> Table:
        return result_table(self.records, EPOCHS if epoch is None else [epoch])


def fit(
    job: str | PathLike[str] | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    storage: str | None = None,
    resume: bool = False,
) -> Run:
    """Train every trial of a job; return its run. The best trial's network is then best.safetensors in its folder.

    >>> job = {
    ...     "name": "demo", "context": "local", "data": {"name": "digits", "image_size": 8}, "backbone": "resnet8",
    ...     "train": {"epochs": 1, "batch_size": 32, "steps_per_epoch": 2},
    ...     "search": {"grid": {"method": ["baseline", "ffsd"]}},
    ... }
    >>> run = fit(job, {"train.lr": 0.05})
    >>> run.results()["label"].tolist()
    ['baseline, seed 0', 'ffsd n=2, seed 0']

    Args:
        job: a job file's path, or what such a file says, as a dictionary.
        overrides: values by dotted key that go over what the job says, such as {"train.epochs": 5}.
        storage: where the run's folder goes, in place of the job's `records.storage`.
        resume: go on with the run in the job's folder.

    Raises:
        UserError: the message is what the command prints.
    """
    options = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    if isinstance(job, Mapping):
        plan = parse_job(yaml.safe_dump(dict(job), sort_keys=False), "job", options)
    else:
        plan = load_job(Path(job), options)
    records = train_job(plan, Screen(), storage=storage, resume=resume)
    keep_best_model(records, result_table(records))
    return Run(records)


def open_run(path: str | PathLike[str]) -> Run:
    """The run in a folder, or at a URI.

    >>> run = open_run("runs/demo")
    >>> [trial.result["epochs"] for trial in run]
    [1, 1]
    >>> run.history()["epoch"].tolist()
    [1, 1]

    Raises:
        RecordsError: there is none.
    """
    return Run(RunRecords.open(str(path)))
