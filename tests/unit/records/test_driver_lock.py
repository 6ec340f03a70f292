"""Two processes on one run: the second is refused as long as the first lives."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray import train_job as command
from ffsd_ray.errors import RecordsError
from ffsd_ray.records import driver_lock as sole
from ffsd_ray.records.driver_lock import FILE, sole_driver
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.run import main

from helpers.small_run import local_job

DRIVER = """
import sys, time
from ffsd_ray.records import driver_lock as sole
from ffsd_ray.records.store import Store
sole.BEAT = 0.2
with sole.sole_driver(Store(sys.argv[1]), print):
    print("drives", flush=True)
    time.sleep(600)
"""
JOB = local_job("method: {name: baseline}", "train: {epochs: 1, batch_size: 64, steps_per_epoch: 2}")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that drives the run."""
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "small")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "drives\n"
    while not (tmp_path / "small" / FILE).exists():
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(JOB)
    return file


def test_a_run_has_one_driver(
    driver: subprocess.Popen[str], job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(job), "--storage", str(tmp_path)]
    assert main([*arguments, "--resume"]) == 2
    assert f"process {driver.pid} on " in capsys.readouterr().err
    run = RunRecords(Store(str(tmp_path / "small")))
    assert not run.exists(), "nothing written"

    driver.kill()
    driver.wait()
    assert run.store.exists(FILE), "it said nothing more"
    assert main([*arguments, "--resume"]) == 0
    assert not run.store.exists(FILE)


@pytest.mark.thorough
def test_another_machines_driver_is_watched(
    driver: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "small"))
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    monkeypatch.setattr(sole, "_machine", lambda: "another")
    with pytest.raises(RecordsError, match="is at work on this run"), sole_driver(store, print):
        pass
    driver.kill()
    driver.wait()
    monkeypatch.setattr(sole, "WATCH", 3.0)
    began = time.monotonic()
    said: list[str] = []
    with sole_driver(store, said.append):
        assert "watching it: 3 s" in said[0]
        assert time.monotonic() - began > 2
        while json.loads(store.read(FILE))["host"] != "another":
            time.sleep(0.1)
    assert not store.exists(FILE)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"host": "h", "process": "x", "beat": 1}', b"\xff"])
def test_a_sign_that_cannot_be_read_is_none(content: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write(FILE, content)
    with sole_driver(store, print):
        pass
    assert not store.exists(FILE)


RACER = """
import sys, time
from ffsd_ray.errors import RecordsError
from ffsd_ray.records import driver_lock as sole
from ffsd_ray.records.driver_lock import sole_driver
from ffsd_ray.records.store import Store
sole.BEAT = 0.2
print("ready", flush=True)
for line in sys.stdin:
    folder, delay = line.split()
    time.sleep(float(delay))
    try:
        with sole_driver(Store(folder), lambda text: None):
            print("drives", flush=True)
            sys.stdin.readline()
    except RecordsError as error:
        print("refused", flush=True)
        sys.stdin.readline()
    print("over", flush=True)
"""


@pytest.fixture
def racers() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that try to drive the runs that they are told."""
    command = [sys.executable, "-c", RACER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [heard(process) for process in processes] == ["ready", "ready"]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


@pytest.mark.parametrize("stale", [False, True], ids=["no sign", "the sign of one that is gone"])
def test_of_two_that_start_at_once_one_drives(stale: bool, racers: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for attempt in range(50):
        run = Store(str(tmp_path / str(attempt)))
        if stale:
            run.write_json(
                FILE,
                sole._SignOfLife.of_this_process("earlier", 0).model_copy(update={"process": gone.pid}).model_dump(),
            )
        for index, process in enumerate(racers):
            tell(process, f"{run.location} {index * (attempt % 5) / 1000}")
        outcomes = [heard(process) for process in racers]  # the one that drives goes on until it is told to end
        assert sorted(outcomes) == ["drives", "refused"], attempt
        loser, winner = (racers[outcomes.index(word)] for word in ("refused", "drives"))
        tell(loser, "end")
        assert heard(loser) == "over"
        assert run.exists(FILE), "the loser leaves the winner's sign alone"
        tell(winner, "end")
        assert heard(winner) == "over"
        assert not run.exists(FILE)


def test_a_number_of_a_process_that_was_used_again(tmp_path: Path) -> None:
    """The process that now has it is not the one that left the sign."""
    run = Store(str(tmp_path))
    run.write_json(
        FILE, sole._SignOfLife.of_this_process("earlier", 0).model_copy(update={"started": "1"}).model_dump()
    )
    said: list[str] = []
    with sole_driver(run, said.append):
        assert said == []


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def sigint(request: pytest.FixtureRequest) -> Iterator[None]:
    """Signals as a command has them that a shell starts in the foreground, or a script in the background."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, request.param)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("sigint")
def test_a_driver_whose_sign_another_replaced_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be on storage without locks; the other's sign stays."""
    monkeypatch.setattr(sole, "BEAT", 0.1)
    run, other = Store(str(tmp_path)), sole._SignOfLife.of_this_process("another", 0)

    def drive() -> None:
        with sole_driver(run, print):
            run.write_json(FILE, other.model_dump())
            threading.Event().wait(60)

    with pytest.raises(RecordsError, match="is at work on this run"):
        drive()
    assert sole._last_sign(run) == other


def test_storage_without_locks_lets_the_last_to_write_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = Store(str(tmp_path)), sole._SignOfLife.of_this_process("another", 0)
    monkeypatch.setattr(Store, "locked", lambda self, name: contextlib.nullcontext(False))
    monkeypatch.setattr(time, "sleep", lambda seconds: run.write_json(FILE, other.model_dump()))
    with pytest.raises(RecordsError, match="is at work on this run"), sole_driver(run, print):
        pass
    assert sole._last_sign(run) == other


def test_a_run_that_another_ended_meanwhile_is_used(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It began, and ended, while this process read its images."""
    arguments = [str(job), "--storage", str(tmp_path)]
    read = command.read_images

    def slowly(specs: Any, **options: Any) -> list[str]:
        monkeypatch.setattr(command, "read_images", read)
        assert main(arguments) == 0
        return read(specs, **options)

    monkeypatch.setattr(command, "read_images", slowly)
    assert main(arguments) == 2
    assert "a run is here already" in capsys.readouterr().err
