"""The records of one run of a job."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DamagedRecords, RecordsError
from ffsd_ray.file_schema import SchemaError, described
from ffsd_ray.records.schemas import FORMAT, RUN
from ffsd_ray.records.store import Store, parallel_map
from ffsd_ray.records.trial import State, TrialRecords
from ffsd_ray.stamp import check_stamp, stamped_json, unstamped_json

#: Whose job.json is, in its stamp: not the folder, which may be renamed.
_OWNER = "run"


@dataclass(frozen=True)
class RunRecords:
    """A run's folder: job.yaml (as given), job.json (what it was resolved to) and a folder a trial."""

    store: Store

    @classmethod
    def open(cls, location: str) -> "RunRecords":
        """Open an existing run.

        Raises:
            RecordsError: there is none.
        """
        records = cls(Store(location))
        if not records.exists():
            raise RecordsError(f"{location}: no run here (no job.json in it); give the folder that the run printed")
        return records

    def exists(self) -> bool:
        return self.store.exists("job.json")

    def begin(
        self, text: str, job: Mapping[str, Any], overrides: Sequence[str], trials: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write the job file's text, the job, what was set on the command line, and the specs by identity, in order."""
        self.store.write("job.yaml", text.encode())
        self._write({"format": FORMAT, "job": dict(job), "overrides": list(overrides), "trials": dict(trials)})

    def add(self, identity: str, spec: Mapping[str, Any]) -> None:
        """Add a planned trial, which a searcher chose while others ran."""
        content = self._content()
        content["trials"].setdefault(identity, dict(spec))
        self._write(content)

    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self._content()["job"]
        return job

    def scale(self) -> ScaleSettings:
        """The CPUs and GPUs of a worker in the job's section `scale`: where trials say nothing else, it is theirs.

        Raises:
            DamagedRecords: they are not what such a section may have.
        """
        section = self.job().get("scale", {})
        keys = ("gpus_per_worker", "cpus_per_worker")
        try:
            return ScaleSettings.model_validate({key: section[key] for key in keys if key in section})
        except ValidationError as error:
            raise self.store.damaged("job.json", f"job.scale: {described(error)}") from error

    def text(self) -> str:
        """The job file as given."""
        return self.store.parsed("job.yaml", bytes.decode, "text in UTF-8")

    def overrides(self) -> list[str]:
        """The overrides (`--set`) of the command line."""
        overrides: list[str] = self._content()["overrides"]
        return overrides

    def trials(self) -> dict[str, dict[str, Any]]:
        """The planned trials' specs by identity, in the job's order."""
        trials: dict[str, dict[str, Any]] = self._content()["trials"]
        return trials

    def specs(self) -> dict[str, TrialSpec]:
        """The planned trials as TrialSpecs, by identity, in the job's order.

        Raises:
            DamagedRecords: one is not a spec of this version, or not of the trial that it stands under.
        """
        return {identity: self._spec(identity, planned) for identity, planned in self.trials().items()}

    def labels(self, specs: Iterable[TrialSpec]) -> dict[str, str]:
        """A name for each of these trials, by identity: what progress and tables call it."""
        return trial_labels(list(specs), self.job().get("report", {}).get("rows"))

    def reuse(self, identities: Sequence[str], warn: Callable[[str], None]) -> dict[str, str]:
        """Take over those trials that other runs in the same storage have completed.

        Returns the run that each reused trial came from, by identity. Checkpoints stay where they are. A trial whose
        records are damaged there counts as not completed there; `warn` is told of it.
        """
        reused: dict[str, str] = {}
        for identity, other in self._elsewhere(identities):
            if identity in reused:
                continue
            try:
                if self.trial(identity).copy_from(other.trial(identity), other.store.name):
                    reused[identity] = other.store.name
            except DamagedRecords as error:
                warn(str(error))
        return reused

    def completed_elsewhere(self, identities: Sequence[str]) -> set[str]:
        """The trials of which other runs in the same storage have a result."""
        elsewhere = list(self._elsewhere(identities))
        states = parallel_map(lambda pair: pair[1].trial(pair[0]).state(), elsewhere)
        return {identity for (identity, _), state in zip(elsewhere, states, strict=True) if state == "completed"}

    def _elsewhere(self, identities: Sequence[str]) -> Iterator[tuple[str, "RunRecords"]]:
        """Each of the trials with each other run in the same storage that has records of it."""
        storage = self.store.parent
        for name in storage.names():
            if name == self.store.name:
                continue
            other = RunRecords(storage.child(name))
            folders = set(other.store.child("trials").names())
            yield from ((identity, other) for identity in identities if identity in folders)

    def states(self) -> list[State]:
        """Of each planned trial, in the job's order."""
        return parallel_map(lambda identity: self.trial(identity).state(), self.trials())

    def trial(self, identity: str) -> TrialRecords:
        return TrialRecords(self.store.child("trials").child(identity))

    def _content(self) -> dict[str, Any]:
        def read(content: bytes) -> Any:
            check_stamp(content, _OWNER)
            return unstamped_json(content, RUN)

        return self.store.parsed("job.json", read, "JSON")

    def _write(self, content: Mapping[str, Any]) -> None:
        self.store.write("job.json", stamped_json(content, _OWNER))

    def _spec(self, identity: str, planned: dict[str, Any]) -> TrialSpec:
        try:
            return checked_spec(planned, identity)
        except SchemaError as error:
            raise self.store.damaged("job.json", f"trials.{identity}: {error}") from error


def checked_spec(content: Mapping[str, Any], identity: str) -> TrialSpec:
    """The spec of the trial with this identity.

    Raises:
        SchemaError: it is not a spec of this version, or another trial's.
    """
    try:
        spec = TrialSpec.model_validate(content)
    except ValidationError as error:
        raise SchemaError(f"expected a spec of this version: {described(error)}") from error
    if spec.identity() != identity:
        raise SchemaError(f"this version computes {spec.identity()} as the identity of the spec")
    return spec
