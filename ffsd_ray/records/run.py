"""The records of one run of a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffsd_ray.errors import RecordsError
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords


@dataclass(frozen=True)
class RunRecords:
    """A run's folder: job.yaml (as given), job.json (what it was resolved to) and a folder a trial."""

    store: Store

    @classmethod
    def open(cls, location: str) -> "RunRecords":
        """An existing run.

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
        content = {"job": dict(job), "overrides": list(overrides), "trials": dict(trials)}
        self.store.write_json("job.json", content)

    def add(self, identity: str, spec: Mapping[str, Any]) -> None:
        """One more planned trial, which a searcher chose while others ran."""
        content = self.store.read_json("job.json")
        content["trials"].setdefault(identity, dict(spec))
        self.store.write_json("job.json", content)

    def job(self) -> dict[str, Any]:
        return self.store.read_json("job.json")["job"]

    def text(self) -> str:
        """The job file as given."""
        return self.store.read("job.yaml").decode()

    def overrides(self) -> list[str]:
        """What was set over it on the command line."""
        return self.store.read_json("job.json")["overrides"]

    def trials(self) -> dict[str, dict[str, Any]]:
        """The planned trials' specs by identity, in the job's order."""
        return self.store.read_json("job.json")["trials"]

    def reuse(self, identities: Sequence[str]) -> dict[str, str]:
        """Take over those trials that other runs in the same storage have completed.

        Returns the run that each reused trial came from, by identity. Checkpoints stay where they are.
        """
        storage, own = self.store.parent, self.store.name
        found: dict[str, str] = {}
        for name in storage.names():
            if name == own:
                continue
            other = RunRecords(storage.child(name))
            there = set(other.store.child("trials").names())
            for identity in identities:
                if (
                    identity in there
                    and identity not in found
                    and self.trial(identity).take(other.trial(identity), name)
                ):
                    found[identity] = name
        return found

    def trial(self, identity: str) -> TrialRecords:
        return TrialRecords(self.store.child("trials").child(identity))
