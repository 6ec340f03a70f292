"""Runs and images in an object store."""

from pathlib import Path

from ffsd_ray.data import Dataset
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.trial import TrialRecords

from helpers.images import images_of, png
from helpers.s3_server import Server


def trials(location: str) -> dict[str, TrialRecords]:
    records = RunRecords.open(location)
    found = [records.trial(identity) for identity in records.trials()]
    return {trial.spec()["method"]["name"]: trial for trial in found}


def upload(s3: Server, folder: Path, to: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            s3.put(f"{to}/{path.relative_to(folder)}", path.read_bytes())


def class_folders(digits: Dataset, root: Path) -> None:
    for part, split in (("train", digits.train), ("test", digits.test)):
        images = images_of(split)
        for index in range(40):
            folder = root / part / f"class{int(split.labels[index]) % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(png(images[index]))
