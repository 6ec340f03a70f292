"""Which images a job's trials are trained on: known by their content, wherever they lie."""

from collections.abc import Iterator, Mapping
from typing import Any

from ffsd_ray.config.load import Plan
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import DataSettings
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.errors import RecordsError


def with_fingerprints(plan: Plan, *, progress: bool, fetch: bool = True) -> Plan:
    """The plan with the fingerprint of every trial's images, as they are now. `fetch`: also of those elsewhere.

    Raises:
        DataMissing: there are no images where the settings say.
        DataError: images cannot be read, or are not those of the fingerprint that the job names.
    """
    known: dict[DataSettings, DataSettings] = {}

    def identified(trial: TrialSpec) -> TrialSpec:
        data = trial.data
        if data not in known:
            here = data if fetch else data.without_fetching()
            known[data] = here.with_fingerprint(progress) if isinstance(here, StreamableSettings) else data
        return trial if known[data] is data else trial.with_data(known[data])

    return plan.changed(identified)


def described_images(plan: Plan) -> list[str]:
    """A line for each set of images that has a fingerprint."""
    lines = {}
    for data in _image_settings(plan):
        places = ", ".join(data.locations.values())
        lines[places, data.fingerprint] = f"Images: {places}: fingerprint {str(data.fingerprint)[:16]}"
    return list(lines.values())


def check_same_images(plan: Plan, recorded: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise RecordsError where a run that is to go on has trained on other images in the same place.

    `recorded`: the specs of its trials.
    """
    before = {}
    for spec in recorded.values():
        data = dict(spec["data"])
        fingerprint = data.pop("fingerprint", None)
        before[repr(sorted(data.items()))] = fingerprint
    for settings in _image_settings(plan):
        data = settings.model_dump()
        now = data.pop("fingerprint")
        then = before.get(repr(sorted(data.items())), now)
        if then != now:
            places = ", ".join(f"data.{key} = {location}" for key, location in settings.locations.items())
            raise RecordsError(
                f"{places}: the images are not those that this run began with (fingerprint {str(then)[:16]}, now "
                f"{str(now)[:16]}), so its results would be of two data sets. Train on these: --set name=NEW, without "
                "--resume. Or bring the earlier ones back."
            )


def _image_settings(plan: Plan) -> Iterator[StreamableSettings]:
    for trial in (*plan.trials, *([plan.template] if plan.template is not None else [])):
        if isinstance(trial.data, StreamableSettings):
            yield trial.data
