"""A run of a small job named `small`, in a folder that holds its job file."""

from pathlib import Path

from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main


def train(folder: Path, job: str) -> Path:
    """Run the job to its end; the folder."""
    (folder / "job.yaml").write_text(job)
    assert again(folder) == 0
    return folder


def again(folder: Path, *arguments: str) -> int:
    """The run's command; its status."""
    return main([str(folder / "job.yaml"), "--storage", str(folder / "runs"), *arguments])


def trial(folder: Path, method: str) -> Path:
    """The folder of the only trial of a method."""
    records = RunRecords.open(str(folder / "runs" / "small"))
    [identity] = [name for name, spec in records.trials().items() if spec["method"]["name"] == method]
    return folder / "runs" / "small" / "trials" / identity
