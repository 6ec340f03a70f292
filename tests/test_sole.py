"""Two processes on one run: the second is refused as long as the first lives."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffsd_ray.errors import RecordsError
from ffsd_ray.records import sole
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.sole import FILE, sole_driver
from ffsd_ray.records.store import Store
from ffsd_ray.run import main

DRIVER = """
import sys, time
from ffsd_ray.records import sole
from ffsd_ray.records.store import Store
sole.BEAT = 0.2
with sole.sole_driver(Store(sys.argv[1]), print):
    print("drives", flush=True)
    time.sleep(600)
"""
JOB = """
name: small
context: local
data: {name: digits, image_size: 12}
backbone: {name: resnet20}
method: {name: baseline}
train: {epochs: 1, batch_size: 64, steps_per_epoch: 2}
"""


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


def test_another_machines_driver_is_watched(
    driver: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "small"))
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with pytest.raises(RecordsError, match="is at work on this run"), sole_driver(store, print):
        pass
    driver.kill()
    driver.wait()
    monkeypatch.setattr(sole, "WATCH", 3.0)
    began, said = time.monotonic(), []
    with sole_driver(store, said.append):
        assert "watching it for 3 s" in said[0]
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
