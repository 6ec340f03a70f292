"""Measured costs of configurations: the record that `python -m ffsd_ray.bench JOB --all` leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import RecordsError
from ffsd_ray.records.measurement import read
from ffsd_ray.report.tables.rows import Cell


class Measured(NamedTuple):
    """One configuration's."""

    #: Seconds of a training step; None where epochs were timed.
    step: float | None
    images_per_second: Cell
    #: Bytes.
    peak: int | None
    #: How many are trained together.
    networks: int


@dataclass(frozen=True)
class MeasuredCosts:
    """A record's `figures`, by the configuration's identity."""

    caption: str
    figures: Mapping[str, Measured]


def read_measured(path: Path, wanted: Sequence[str]) -> MeasuredCosts:
    """Read a record's figures of the `wanted` configurations (identities).

    Raises:
        RecordsError: it cannot be read, is no record of a job, or has none of them.
    """
    content = read(path)
    if content.get("kind") != "job":
        raise RecordsError(f"{path}: expected the record of a job, found one of: {content.get('kind')}")
    try:
        timed = [
            (TrialSpec.model_validate(own["spec"]).configuration().identity(), own)
            for point in content["points"].values()
            for own in point["settings"].values()
            if "step" in own and not own["literal"]
        ]
        figures = {
            identity: Measured(
                own["step"]["median"], Cell(own["images_per_second"], None), own["peak_bytes"], own["networks"]
            )
            for identity, own in timed
            if identity in wanted
        }
        caption = (
            f"Step, Time ×, Images/s, Peak: {content['device']['name']}, torch {content['versions']['torch']}, "
            f"{content['date'][:10]}, median of {'/'.join(sorted({str(own['step']['n']) for _, own in timed}))} steps"
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise RecordsError(f"{path}: is no record of a job of this version; measure again") from error
    if not figures:
        raise RecordsError(
            f"{path}: has no configuration of this run; expected the record of `python -m ffsd_ray.bench JOB --all` "
            "with the run's job file and the same --set"
        )
    return MeasuredCosts(caption, figures)
