"""What several tests need."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords

from helpers.holding import Hold
from helpers.synthetic_records import Outcome, write_run

# Ray decides once in a process how it signs in to clusters: one way for all tests, some of which know no token.
os.environ["RAY_AUTH_MODE"] = "disabled"
# Ray gives its workers the lowest priority but four, and other processes of the machine would hold up its tests alone.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
# What a job leaves open is then the same on every machine without a GPU: one thread a worker.
os.environ["OMP_NUM_THREADS"] = "1"
# No test cuts the power: what this process writes need not reach the disk before it goes on, which takes milliseconds.
os.fsync = lambda fd: None
# What a shell starts in the background ignores Ctrl-C, and so would the commands that are to be interrupted.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start Ray clusters come first: a process takes half of the tests, and from the other at the end."""
    first = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and images beside the project; tests that want it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name}/ folder beside the project")
    return folder


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Holds trainings in the processes that are started after this fixture."""
    return Hold(tmp_path, monkeypatch)


@pytest.fixture
def record(tmp_path: Path) -> Callable[[str, Callable[[TrialSpec], Outcome]], RunRecords]:
    """The records of a job, each of whose trials came to the outcome that a function says, without being trained."""
    return partial(write_run, tmp_path)
