"""Population based training: the trial whose state another one goes on with."""

from typing import Any, NamedTuple

from ffsd_ray.records.trial import TrialRecords


class Donor(NamedTuple):
    """The trial whose state another one takes over (population based training)."""

    identity: str
    records: TrialRecords
    epoch: int
    changed: dict[str, Any]
    """The settings that the trial goes on with, by dotted key."""

    @property
    def note(self) -> dict[str, Any]:
        """The donor's entry in the lineage."""
        return {"from": self.identity, "epoch": self.epoch, "changed": self.changed}

    def taken_over(self, lineage: list[dict[str, Any]]) -> bool:
        """Whether a state with this lineage was taken over from this donor already."""
        return lineage[-1:] == [self.note]
