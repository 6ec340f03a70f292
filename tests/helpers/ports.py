"""Ports for servers that have to be told one."""

import os
import random
import socket

#: Below those that systems give to whoever asks for any port (on Linux from 32768), and above the usual services'.
_FIRST, _END = 20_000, 30_000
#: Processes of pytest-xdist choose among different ones.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_STEP = 8


def free_port() -> int:
    """A port that nobody listens on, at any of this machine's addresses, and that no other test's server is told."""
    while True:
        port = random.randrange(_FIRST + _WORKER % _STEP, _END, _STEP)
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


_GIVEN: set[int] = set()


def answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with socket.socket() as tried:
        return not tried.connect_ex((host, int(port)))
