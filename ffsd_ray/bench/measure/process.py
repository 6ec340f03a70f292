"""CPU time and memory of another process, from /proc."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffsd_ray.errors import UserError

_MIB = 2**20


class Sample(NamedTuple):
    """A process so far: seconds since it was started, CPU seconds of its own threads, and its resident set in MiB."""

    seconds: float
    cpu_seconds: float
    resident_mib: float
    peak_mib: float

    def figures(self) -> dict[str, float]:
        return {name: round(value, 2) for name, value in self._asdict().items()}


class Ended(NamedTuple):
    """A process that has ended; `last`: the last look at it, None where it wrote nothing."""

    status: int
    seconds: float
    last: Sample | None
    output: str


def observe(command: Sequence[str], told: Callable[[str, Sample], bool], **options: Any) -> Ended:
    """Run a command; `told` gets each line of its output, with a look at the process, and says whether it may go on.

    If not, it gets SIGTERM; a script's background ignores SIGINT. `options`: of `subprocess.Popen`.

    Raises:
        UserError: this system has no /proc.
    """
    if not Path("/proc/self/stat").exists():
        raise UserError("CPU time and memory of a process are read from /proc, which this system does not have")
    began, last, lines = time.monotonic(), None, []
    # Without a buffer: a line is seen when it is written.
    options["env"] = {**os.environ, **options.get("env", {}), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if (sample := _sample(process.pid, began)) is not None:
                last = sample
                if not told(line.rstrip(), sample):
                    process.terminate()
                    break
        lines += process.stdout
    return Ended(process.returncode, time.monotonic() - began, last, "".join(lines))


def timed(module: str, *arguments: str) -> dict[str, float]:
    """Run one of the package's commands to its end: its seconds, CPU seconds, and memory when it wrote last.

    Raises:
        UserError: it ends with another status than 0.
    """
    ended = observe([sys.executable, "-m", module, *arguments], lambda line, sample: True)
    if ended.status != 0 or ended.last is None:
        called = shlex.join([module, *arguments])
        raise UserError(f"{called} ended with status {ended.status}:\n{ended.output[-2000:]}")
    return ended.last.figures() | {"seconds": round(ended.seconds, 2)}


def resident_set(process: int | str) -> tuple[int, int]:
    """Bytes of a process's resident set, now and at its largest; `process`: its number, or `self`.

    Raises:
        OSError: there is no such process, or no /proc.
        KeyError: it has ended, and has no memory any more.
    """
    status = dict(line.partition(":")[::2] for line in Path(f"/proc/{process}/status").read_text().splitlines())
    now, peak = (1024 * int(status[key].split()[0]) for key in ("VmRSS", "VmHWM"))
    return now, peak


def _sample(process: int, began: float) -> Sample | None:
    """None where the process has ended."""
    try:
        # The name, in brackets, may hold anything.
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        resident, peak = (size / _MIB for size in resident_set(process))
    except (OSError, KeyError):
        return None
    cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Sample(time.monotonic() - began, cpu, resident, peak)
