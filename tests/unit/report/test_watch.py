"""A page that keeps up with a run whose records grow while the command waits."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.records.driver_lock import FILE, sole_driver
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report import __main__ as command
from ffsd_ray.report.page.watch import watch

from helpers.synthetic_records import result

pytest.importorskip("plotly", reason="the extra `plot` is not installed")

JOB = """
name: small
data: {name: digits, image_size: 8}
backbone: {name: resnet8}
method: {name: baseline}
seed: [0, 1]
"""
RELOADS = '<meta http-equiv="refresh"'


def watched(
    run: RunRecords,
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    *steps: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, list[str]]:
    """The command's status, and the page as it stood at each wait, after which comes the next step."""
    seen: list[str] = []
    left = iter(steps)

    def wait(seconds: float) -> None:
        assert seconds >= 5
        seen.append(page.read_text())
        next(left)()

    monkeypatch.setattr(command, "watch", partial(watch, wait=wait, clock=clock))
    return command.main([run.store.location, "--html", str(page), "--watch"]), seen


def test_the_page_grows_until_the_run_has_ended(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = record(JOB, lambda spec: None), tmp_path / "run.html"
    first, second = (run.trial(identity) for identity in run.trials())
    specs = list(run.specs().values())
    written: list[int] = []

    def complete(trial: Any, spec: Any) -> None:
        written.append(page.stat().st_mtime_ns)
        ended = result(spec, 90.0 + spec.seed, 80.0)
        trial.write_history([ended["last"]])
        trial.finish(ended)

    def nothing() -> None:
        written.append(page.stat().st_mtime_ns)

    with ExitStack() as driver:
        driver.enter_context(sole_driver(run.store, print))
        steps = (
            partial(complete, first, specs[0]),
            nothing,
            partial(complete, second, specs[1]),
            driver.close,
        )
        status, seen = watched(run, page, monkeypatch, *steps)
    assert status == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert all(RELOADS in text for text in seen)
    assert ["1 completed" in text for text in seen] == [False, True, True, False]
    assert "2 completed" in seen[3]
    assert written[1] == written[2] > written[0], "where nothing has changed nothing is written"
    assert RELOADS not in page.read_text(), "it is as it will stay"
    assert "2 completed" in page.read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"job.yaml", "run", "run.html"}, "nothing half written is left"


def test_ctrl_c_leaves_a_page_that_stays_as_it_is(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run, page = record(JOB, lambda spec: None), tmp_path / "run.html"
    with sole_driver(run.store, print):
        status, [seen] = watched(run, page, monkeypatch, interrupt)
    assert status == 130
    assert RELOADS in seen
    assert RELOADS not in page.read_text()


def test_a_run_at_which_no_process_is_at_work(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = record(JOB, lambda spec: None), tmp_path / "run.html"
    assert watched(run, page, monkeypatch) == (0, [])
    assert RELOADS not in page.read_text()
    with pytest.raises(SystemExit):
        command.main([run.store.location, "--watch"])
    assert "--watch keeps a page up to date; give its file: --html FILE" in capsys.readouterr().err


def test_a_process_of_another_machine_that_is_silent_counts_as_gone(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After ten minutes, from its last sign of life on."""
    run, page = record(JOB, lambda spec: None), tmp_path / "run.html"
    now = 0.0

    def sign(beat: int, seconds: float) -> None:
        nonlocal now
        now += seconds
        started = {"process": 7, "started": "1", "token": "a", "beat": beat}
        run.store.write_json(FILE, {"host": "node4", "machine": "another", **started})

    sign(0, 0)
    steps = (partial(sign, 0, 590), partial(sign, 1, 20), partial(sign, 1, 590), partial(sign, 1, 20))
    status, seen = watched(run, page, monkeypatch, *steps, clock=lambda: now)
    assert (status, len(seen)) == (0, 4)
    assert RELOADS in seen[3]
    assert RELOADS not in page.read_text()
    assert "no sign of life from process 7 on node4 for 10 minutes, so this has ended" in capsys.readouterr().err
