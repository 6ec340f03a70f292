"""The environment of a trial: versions, revision and device, for its records."""

import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ffsd_ray import plugins

#: What Linux says of its processors.
_PROCESSORS = Path("/proc/cpuinfo")


def environment(device: torch.device, workers: int) -> dict[str, Any]:
    """Versions, git revision, device and threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "versions": {
            "python": platform.python_version(),
            **_versions("ffsd-ray", "torch", "torchvision", "timm", "ray"),
            **{f"plugin {name}": digits for name, digits in plugins.load().items()},
        },
        "revision": _revision(),
        "device": {"type": device.type, "name": name, "workers": workers, "threads": torch.get_num_threads()},
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The model of this machine's processor, on which a training's last digits depend; its architecture elsewhere.

    With its numbers, for clouds call several generations by one name: `AMD EPYC (family 26, model 2)`.
    """
    text = _PROCESSORS.read_text() if _PROCESSORS.exists() else ""
    fields = {
        name.strip(): value.strip() for name, value in re.findall(r"^([^:\n]+):(.*)", text.split("\n\n")[0], re.M)
    }
    if "model name" not in fields:
        return platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    return f"{fields['model name']} ({', '.join(numbers)})" if numbers else fields["model name"]


def _versions(*packages: str) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _revision() -> str | None:
    """The git revision of the package's own checkout, `+` behind it where files differ; None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--match=-"]
    described = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return described.stdout.strip() or None
