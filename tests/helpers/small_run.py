"""Small jobs named `small`, and their runs, in a folder that holds the job file."""

from pathlib import Path
from typing import Any

from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main
from ffsd_ray.stamp import blank, stamped, stamped_json, trial_owner


def small_job(*lines: str) -> str:
    """A job file that trains in seconds: digits of 8×8 pixels on a resnet20, and these lines."""
    return "\n".join(["name: small", "data: {name: digits, image_size: 8}", "backbone: {name: resnet20}", *lines, ""])


def local_job(*lines: str) -> str:
    """Such a job trained in this process, without Ray."""
    return small_job(*lines, "context: local")


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


def owner_of(file: Path) -> str:
    """Whose a file is by its place, as its stamp names it."""
    if file.name == "job.json":
        return "run"
    return trial_owner(file.parents[file.parent.name == "checkpoints"].name)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a record with a sound stamp, as if the package had written this."""
    content = {key: value for key, value in content.items() if key != "stamp"}
    file.write_bytes(stamped_json(content, owner_of(file)))


def write_stamped(file: Path, content: bytes) -> None:
    """Write something else with a sound stamp behind it, which pickle passes over, and ZIP as its comment."""
    stamp = blank(owner_of(file)).encode()
    if content[-22:-18] == b"PK\x05\x06":
        content = content[:-2] + len(stamp).to_bytes(2, "little")
    file.write_bytes(stamped(content + stamp))
