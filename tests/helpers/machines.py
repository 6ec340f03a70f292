"""Machines that share no files: process trees of this one, each in namespaces of its own."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from helpers.ports import free_port

#: All that a machine has to begin with, and only to be read: the system, Python and installed packages.
_GIVEN = ["/bin", "/dev", "/etc", "/lib", "/lib64", "/sbin", "/sys", "/usr", sys.base_prefix, sys.prefix]
_GIVEN += [path for path in sys.path if path.endswith("site-packages")]
#: Memory becomes the root, in the folder $1, so that what the machine writes goes with it; after -- the command.
_BOOT = """\
set -e
root=$1; shift
mount -t tmpfs machine "$root"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
mount -t tmpfs machine "$root/dev/shm"
mkdir -p "$root/proc" "$root/tmp" "$root/home"
mount -t proc proc "$root/proc"
exec chroot "$root" "$@"
"""
_ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home",
    "LANG": "C.UTF-8",
    "RAY_AUTH_MODE": "disabled",
}


class Machine:
    """A command, and all that it starts, on a machine of its own."""

    def __init__(
        self, name: str, folder: Path, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """`folder`: where its name is a free one for an empty folder, and for what the command prints."""
        self.name, self._log = name, folder / f"{name}.log"
        root = folder / name
        root.mkdir()
        given = [path for path in _GIVEN if Path(path).is_dir()]
        boot = ["sh", "-c", _BOOT, "boot", str(root), *given, "--", *command]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                # the first process of a namespace takes all others with it
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", *boot],
                env=_ENVIRONMENT | dict(environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def files(self, pattern: str) -> list[Path]:
        """Those that it has, by a pattern relative to its root."""
        [first] = psutil.Process(self._process.pid).children()
        return list(Path(f"/proc/{first.pid}/root").glob(pattern))

    def output(self) -> str:
        return self._log.read_text()

    def wait(self) -> int:
        return self._process.wait()

    def end(self) -> None:
        """As a machine goes: at once, with all that it runs."""
        with suppress(psutil.NoSuchProcess):
            for first in psutil.Process(self._process.pid).children():
                first.kill()
        self._process.wait(60)


class RayMachines:
    """A Ray cluster of such machines: a head that trains nothing, and those of one CPU that are added."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment`: of every machine, besides what a system needs."""
        self._folder, self._environment = folder, environment
        self.machines: list[Machine] = []
        port, dashboard, client = (free_port() for _ in range(3))
        self._gcs, self.dashboard = f"{_ip(0)}:{port}", f"http://{_ip(0)}:{dashboard}"
        head = ["--head", f"--port={port}", f"--dashboard-host={_ip(0)}", f"--dashboard-port={dashboard}"]
        self._start("--num-cpus=0", f"--ray-client-server-port={client}", *head)

    def add(self) -> Machine:
        return self._start("--num-cpus=1", f"--address={self._gcs}")

    def wait(self) -> None:
        """Until all that were started have joined."""
        until = time.monotonic() + 120
        while self._alive() < len(self.machines):
            assert time.monotonic() < until, "\n".join(machine.output() for machine in self.machines)
            time.sleep(0.5)

    def end(self) -> None:
        for machine in reversed(self.machines):
            machine.end()

    def _start(self, *options: str) -> Machine:
        number = len(self.machines)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={_ip(number)}"]
        # those that Ray would take are the same on every machine
        ray += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000", *options]
        self.machines.append(Machine(f"machine{number}", self._folder, ray, self._environment))
        return self.machines[-1]

    def _alive(self) -> int:
        with suppress(OSError), urllib.request.urlopen(f"{self.dashboard}/api/v0/nodes", timeout=10) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
            return sum(node["state"] == "ALIVE" for node in nodes)
        return 0


def _ip(number: int) -> str:
    """Of this machine's own network, all of which leads back to it: by address Ray tells machines apart."""
    return f"127.0.0.{number + 2}"


@contextmanager
def ray_machines(folder: Path, environment: Mapping[str, str]) -> Iterator[RayMachines]:
    """The head alone, and what is added meanwhile. Skips the test where machines cannot be made."""
    _skip_without(folder)
    cluster = RayMachines(folder, environment)
    try:
        yield cluster
    finally:
        cluster.end()


def _skip_without(folder: Path) -> None:
    try:
        tried = Machine("tried", folder, ["true"])
    except FileNotFoundError:
        pytest.skip("no machines can be made here: there is no unshare")
    if tried.wait():
        pytest.skip(f"no machines can be made here: {tried.output().strip()}")
