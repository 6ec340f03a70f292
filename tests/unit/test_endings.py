"""A command that is told to end, by Ctrl-C or SIGTERM, once or twice: status 130, one line, nothing left behind."""

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ffsd_ray import interruption
from ffsd_ray.interruption import Interrupted, postponed
from ffsd_ray.launch.scratch import scratch_folder

from helpers.commands import wait_for
from helpers.small_run import small_job
from helpers.tiers import often

SIGNALS = (signal.SIGINT, signal.SIGTERM)
JOB = small_job(
    "method: {name: baseline}",
    "train: {epochs: 5000, batch_size: 256, steps_per_epoch: 1}",
    "scale: {launcher: trial}",
    "records: {reuse: false}",
    "seed: [0, 1]",
)


class Running:
    """`python -m MODULE` in a session and with a temporary folder of its own; its output goes to files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary, self._out, self._err = folder / "t", folder / "out", folder / "err"
        self.temporary.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        with self._out.open("w") as out, self._err.open("w") as err:
            command = [sys.executable, *arguments]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        wait_for(lambda: condition() or self.process.poll() is not None, what)
        assert self.process.poll() is None, self.out + self.err

    def end(self, sent: signal.Signals, times: int) -> None:
        """Send the signal as a terminal or as `ray job stop` does, and check how the command ends."""
        for _ in range(times):
            if sent == signal.SIGINT:
                os.killpg(self.process.pid, sent)
            else:
                self.process.send_signal(sent)
        try:
            wait_for(lambda: self.process.poll() is not None, "the end of the command")
        finally:
            self.process.kill()
        assert self.process.returncode == 130, self.out + self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("import time:")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Interrupted.")
        assert "Traceback" not in self.out
        # torch's cache is meant to stay; wandb's empty folders are left by workers that Ray kills once they import it.
        left = [path.name for path in self.temporary.iterdir() if not re.search("^torchinductor|wandb", path.name)]
        assert left == []
        wait_for(lambda: not self._processes(), "the end of all its processes")

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.temporary) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue  # gone, or another user's
        return found


def job(folder: Path, settings: str = "") -> list[str]:
    (folder / "job.yaml").write_text(JOB + settings)
    return ["-m", "ffsd_ray.run", str(folder / "job.yaml"), "--storage", str(folder / "runs")]


@pytest.mark.parametrize("module", ["ffsd_ray.run", "ffsd_ray.report", "ffsd_ray.evaluate"])
@pytest.mark.parametrize("sent", SIGNALS)
def test_while_importing(module: str, sent: signal.Signals, tmp_path: Path) -> None:
    running = Running(tmp_path, "-X", "importtime", "-m", module, "nothing")
    running.wait_for(lambda: "torch." in running.err, "torch being imported")
    running.end(sent, times=2)
    assert running.err.count("Interrupted.\n") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("sent", often(SIGNALS[:1], SIGNALS, others="slow"))
def test_while_training_in_this_process(sent: signal.Signals, tmp_path: Path) -> None:
    running = Running(tmp_path, *job(tmp_path, "context: local\n"))
    running.wait_for(lambda: "epoch 1/" in running.out, "the first epoch")
    assert (tmp_path / "runs" / "small" / "driver.json").exists()
    running.end(sent, times=2)
    assert "0 of 2 trials are completed; the others go on" in running.err
    assert not (tmp_path / "runs" / "small" / "driver.json").exists()


#: What is there once a run has come so far.
MOMENTS = {
    "importing ray": lambda running: "Records:" in running.out,
    "starting the head": lambda running: list(running.temporary.glob("ffsd_ray-*/session_2*/logs/gcs_server.out")),
    "starting the node": lambda running: list(running.temporary.glob("ffsd_ray-*/session_2*/logs/raylet.out")),
    "training": lambda running: "epoch 1/" in running.out,
}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("moment", "sent", "times"),
    [
        pytest.param(moment, sent, times, marks=pytest.mark.thorough if ordinary else pytest.mark.slow)
        for moment in MOMENTS
        for sent in SIGNALS
        for times in (1, 2)
        for ordinary in [(moment, sent, times) == ("starting the node", signal.SIGTERM, 2)]
    ],
)
def test_on_ray(moment: str, sent: signal.Signals, times: int, short_folder: Path) -> None:
    running = Running(short_folder, *job(short_folder))
    running.wait_for(lambda: MOMENTS[moment](running), moment)
    running.end(sent, times)
    assert not (short_folder / "runs" / "small" / "driver.json").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_the_next_run_clears_what_a_killed_one_left(short_folder: Path) -> None:
    running = Running(short_folder, *job(short_folder))
    running.wait_for(lambda: "epoch 1/" in running.out, "the first epoch")
    running.process.kill()
    running.process.wait()
    left = list(running.temporary.glob("ffsd_ray-*"))
    assert left
    environment = os.environ | {"TMPDIR": str(running.temporary)}
    again = [*job(short_folder), "--resume", "--set", "train.epochs=2", "--set", "name=other"]
    subprocess.run([sys.executable, *again], env=environment, check=True, capture_output=True)
    assert not list(running.temporary.glob("ffsd_ray-*"))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets."""
    with scratch_folder("/tmp") as folder:
        yield Path(folder)


# ---- the parts


@pytest.fixture
def handled() -> Iterator[None]:
    """Signals have the handlers that a command's have once it has begun."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interruption.end_at_once()
    interruption.raise_interrupted()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("sent", SIGNALS)
def test_one_signal_is_enough_and_a_second_harmless(sent: signal.Signals, handled: None) -> None:
    done = []

    def work() -> None:
        try:
            signal.raise_signal(sent)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("cleaned up")

    with pytest.raises(Interrupted):
        work()
    assert done == ["cleaned up"]


def test_a_signal_that_was_swallowed_does_not_use_up_the_next(handled: None) -> None:
    """As by a library's `except:`, or by Python in a finaliser."""
    for _ in range(2):
        interrupted = False
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            interrupted = True
        assert interrupted


def test_cleaning_up_is_finished_first(handled: None) -> None:
    done = []

    def clean_up() -> None:
        with postponed():
            with postponed():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            signal.raise_signal(signal.SIGTERM)
            done.append("outer")

    with pytest.raises(Interrupted):
        clean_up()
    assert done == ["inner", "outer"]
    with postponed():
        done.append("again")


def test_cleaning_up_that_hangs_can_be_interrupted(handled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_PATIENCE", 0.0)
    done = []

    def clean_up() -> None:
        with postponed():
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
                done.append("went on")

    with pytest.raises(Interrupted):
        clean_up()
    assert done == ["went on"]


@pytest.mark.parametrize("sent", SIGNALS)
def test_what_a_parent_process_ignores_stays_ignored(sent: signal.Signals, handled: None) -> None:
    """As in the background of a script, or under `nohup`."""
    signal.signal(sent, signal.SIG_IGN)
    interruption.end_at_once()
    interruption.raise_interrupted()
    signal.raise_signal(sent)


def test_a_terminal_does_not_interrupt_children() -> None:
    code = (
        "import signal, multiprocessing, ffsd_ray.interruption as interruption\n"
        "child = multiprocessing.get_context('spawn').Process(target=print)\n"
        "with interruption.children_spared():\n"
        "    child.start()\n"
        "assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "blocked = [line for line in open(f'/proc/{child.pid}/status') if line.startswith('SigBlk')]\n"
        "assert int(blocked[0].split()[1], 16) & 1 << signal.SIGINT - 1, blocked\n"
        "child.join()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_programs_keep_their_handlers() -> None:
    code = "import signal, ffsd_ray.errors; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scratch_folders_of_the_dead_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "ffsd_ray-dead" / "session").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "ffsd_ray-file").touch()
    (tmp_path / "ffsd_ray-link").symlink_to(tmp_path / "other")
    (tmp_path / "ffsd_ray-lives").mkdir()
    lives = os.open(tmp_path / "ffsd_ray-lives", os.O_RDONLY)
    fcntl.flock(lives, fcntl.LOCK_EX)
    with scratch_folder(str(tmp_path), "job-") as folder:
        Path(folder, "file").touch()
        with scratch_folder(str(tmp_path)):
            assert Path(folder, "file").exists(), "the first one's own lives"
        assert Path(folder).name.startswith("ffsd_ray-job-")
    os.close(lives)
    kept = {"other", "ffsd_ray-file", "ffsd_ray-link", "ffsd_ray-lives"}
    assert {path.name for path in tmp_path.iterdir()} == kept
