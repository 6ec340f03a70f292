"""A watchdog for the cluster's head: Ray itself would end the process without a word about the run."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ffsd_ray.errors import ClusterLost

#: Seconds for which Ray waits for a head that does not answer; within them it may come back.
_PATIENCE = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", 60))  # noqa: SIM112 as Ray spells it
#: Seconds between two looks, and for an answer to each.
_INTERVAL = 2.0


@contextmanager
def head_watched(address: str, gone: Callable[[ClusterLost], None]) -> Iterator[None]:
    """For the time of the block; `gone` is called in a thread of its own, when Ray's patience is nearly at its end.

    By then the main thread waits inside Ray for the head, where it hears neither signals nor exceptions, until Ray ends
    the process: so `gone` has to end it.
    """
    host, _, port = address.rpartition(":")
    place = host.strip("[]"), int(port)
    over = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not over.wait(_INTERVAL):
            if _answers(place):
                answered = time.monotonic()
            elif (seconds := time.monotonic() - answered) > 0.75 * _PATIENCE:
                gone(
                    ClusterLost(
                        f"the head of the Ray cluster, {address}, has not answered for {seconds:.0f} s, and this run "
                        "ends. Once there is a cluster again, the same command with --resume goes on from the last "
                        "checkpoints."
                    )
                )
                return

    threading.Thread(target=watch, name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _answers(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, timeout=_INTERVAL):
            return True
    except OSError:
        return False
