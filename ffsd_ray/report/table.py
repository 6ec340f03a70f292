"""The table of a run, as in the paper's Table I: a row a configuration, mean ± standard deviation over its seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ffsd_ray.data import DataSettings
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial, collect
from ffsd_ray.report.labels import labels
from ffsd_ray.report.row import TOGETHER, Epoch, Row, make_row, series
from ffsd_ray.report.sheet import Notes, Section, Sheet, marks
from ffsd_ray.spec.trial import TrialSpec

_EPOCHS: tuple[Epoch, ...] = ("best", "last")


@dataclass(frozen=True)
class Table:
    """A run's results; `columns` are those with a value in some row, besides the configuration and n."""

    title: str
    captions: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def at(self, epoch: Epoch) -> list[Row]:
        return [row for row in self.rows if row.epoch == epoch]

    def sheet(self) -> Sheet:
        """A section an epoch; what is missing as a mark."""
        sections = [
            Section(f"{epoch.capitalize()} epoch", tuple(map(self._line, rows)))
            for epoch in _EPOCHS
            if (rows := self.at(epoch))
        ]
        return Sheet(self.title, self.captions, ("Configuration", "n", *self.columns), tuple(sections), self.notes)

    def records(self) -> list[list[str]]:
        """A line a configuration and epoch; mean and std in columns of their own, what is missing in `notes`."""
        pairs = [name for column in self.columns for name in (column, f"{column} std")]
        lines = [["configuration", "epoch", "n", "seeds", *pairs, "notes"]]
        for row in self.rows:
            values: list[str] = []
            for column in self.columns:
                cell = row.cells.get(column, (None, None))
                values += ["" if value is None else f"{value:.2f}" for value in cell]
            notes = "; ".join(self.notes[number - 1] for numbers in row.notes.values() for number in numbers)
            seeds = " ".join(map(str, row.seeds))
            lines.append([row.configuration, row.epoch, str(len(row.seeds)), seeds, *values, notes])
        return lines

    def _line(self, row: Row) -> tuple[str, ...]:
        count = f"{len(row.seeds)} {marks(row.notes.get('n', ()))}".rstrip()
        values = (
            row.cells[column].text() if column in row.cells else marks(row.notes.get(column, ()))
            for column in self.columns
        )
        return row.configuration, count, *values


def result_table(run: RunRecords, epochs: Sequence[Epoch] = _EPOCHS) -> Table:
    """The table of what a run's records hold so far.

    Gain is a trial's headline accuracy minus that of the baseline trial with the same data, backbone, train section,
    scale section and seed, both at their best or both at their last epoch. It is left blank, with the reason as a note,
    unless every completed seed of a row has such a baseline.

    Raises:
        RecordsError: the records are of another version.
    """
    job, trials = run.job(), collect(run)
    completed = {trial.spec.identity(): trial.result for trial in trials if trial.result is not None}
    configurations: dict[str, list[Trial]] = {}
    for trial in trials:
        configurations.setdefault(trial.spec.configuration().identity(), []).append(trial)
    keys = job.get("report", {}).get("rows")
    names = labels([group[0].spec.configuration() for group in configurations.values()], keys)
    notes = Notes()
    rows = [
        make_row(name, group, epoch, completed, notes)
        for epoch in epochs
        for name, group in zip(names, configurations.values(), strict=True)
    ]
    return Table(job["name"], tuple(_captions(trials, epochs)), _columns(rows), tuple(rows), tuple(notes.texts))


def _columns(rows: Sequence[Row]) -> tuple[str, ...]:
    used = {column for row in rows for column in (*row.cells, *row.notes)}
    common = sorted((c for c in used if c.startswith("Common ")), key=lambda c: int(c.split()[1]))
    return tuple(c for c in ("Baseline", *common, *TOGETHER, "Fusion", "Leader", "Gain") if c in used)


def _captions(trials: Sequence[Trial], epochs: Sequence[Epoch]) -> Iterable[str]:
    """What the numbers are of: data, protocol, split, choice of the epoch, seeds."""
    specs = [trial.spec for trial in trials]
    results = [trial.result for trial in trials if trial.result is not None]
    protocol = [
        _each(specs, lambda spec: images_of(spec.data)),
        _each(specs, lambda spec: spec.backbone.name),
        _each(specs, lambda spec: str(spec.train.epochs)) + " epochs",
        "batch size " + _each(specs, lambda spec: str(spec.train.batch_size)),
        "lr " + _each(specs, lambda spec: f"{spec.train.lr:g}"),
        _each(specs, lambda spec: spec.train.precision),
    ]
    yield ", ".join(protocol)
    yield (
        "top-1 accuracy on the test images in %, mean ± sample standard deviation over n seeds; "
        f"seed {', '.join(map(str, sorted({spec.seed for spec in specs})))}"
    )
    if "best" in epochs:
        for selection in sorted({result["selection"] for result in results}):
            chosen = "the test images, as the paper did" if selection == "test" else "held-out validation images"
            yield f"best epoch: each column's own, chosen on {chosen}"
    if any(result["common"] for result in results):
        yield "Ens (any): right where any common student is; Ens (logits): the mean of their logits"
    heads = {
        f"{column} ({trial.spec.method.name})": None
        for trial in trials
        if trial.result is not None and not isinstance(trial.spec.method, BaselineSettings)
        for column, name in series(trial.result).items()
        if name == trial.result["headline"]
    }
    if heads:
        yield f"Gain: {' or '.join(heads)} minus Baseline, seed by seed"


def _each(specs: Iterable[TrialSpec], value: Callable[[TrialSpec], str]) -> str:
    return " / ".join(dict.fromkeys(map(value, specs)))


def images_of(settings: DataSettings) -> str:
    """A data source's name, and what it must be told to find its images."""
    required = [name for name, field in type(settings).model_fields.items() if field.is_required()]
    told = ", ".join(str(getattr(settings, name)) for name in required)
    return f"{settings.name} ({told})" if told else settings.name
