"""The dated file that every measurement leaves, written anew after each of its points."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ffsd_ray.errors import RecordsError
from ffsd_ray.memory import machine_memory
from ffsd_ray.records.measurement import read
from ffsd_ray.train.environment import environment, processor


class Record:
    """A JSON file: `date` (UTC), `revision`, `device`, `machine`, `versions`, `command`, and `points`, each dated too.

    Where the file is there already, it is gone on with.
    """

    def __init__(self, path: Path, kind: str, command: str, device: torch.device) -> None:
        """`kind`: what is measured.

        Raises:
            RecordsError: the file is no record of the same kind from the same device, or cannot be written.
        """
        self.path = path
        now = environment(device, workers=1)
        began = now.pop("began")
        self._stamp = {"date": began, "revision": now["revision"]}
        self.content: dict[str, Any] = {
            "date": began, "kind": kind, "command": command, **now, "machine": machine(), "points": {},
        }  # fmt: skip
        if path.exists():
            earlier = read(path)
            for key in ("kind", "device"):
                if earlier.get(key) != self.content[key]:
                    raise RecordsError(
                        f"{path}: is there already, with another {key} ({earlier.get(key)}, here {self.content[key]}); "
                        "expected a new file, or one to go on with"
                    )
            self.content = earlier
        self.write()

    @property
    def points(self) -> dict[str, Any]:
        """By name, those that failed too."""
        points: dict[str, Any] = self.content["points"]
        return points

    def add(self, name: str, figures: dict[str, Any]) -> None:
        self.points[name] = self._stamp | figures
        self.write()

    def write(self) -> None:
        """Raises RecordsError."""
        temporary = self.path.with_name(f"{self.path.name}.part")
        try:
            temporary.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
            os.replace(temporary, self.path)
        except OSError as error:
            raise RecordsError(f"{self.path}: cannot be written: {error.strerror}") from error


def machine() -> dict[str, Any]:
    """This machine: its processor, cores, memory, and how many processes have wanted to run in the last minute."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(machine_memory() / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def command_line(module: str, argv: Sequence[str] | None) -> str:
    """The command that a benchmark was started by; `argv`: its arguments, None for this process's."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)])


def default_path() -> Path:
    return Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}.json")
