"""Amounts of memory: what this machine has, and how they are written."""

import os
from contextlib import suppress
from pathlib import Path

#: What a container may take, where there is a limit.
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """Bytes of memory that this machine, or this container, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # there is no such file, or it says "max"
        memory = min(memory, int(_CGROUP.read_text()))
    return memory


def as_bytes(number: float) -> str:
    """`1.4 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"
