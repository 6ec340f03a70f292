"""The command `ffsd`: its words lead to the modules' commands."""

import gc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ffsd_ray
from ffsd_ray.__main__ import main
from ffsd_ray.command import COMMANDS
from ffsd_ray.completion import completion

from helpers.paths import PROJECT


def test_help_fits_a_screen_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    listed = lines[lines.index("commands:") + 1 :]
    words = [line.split()[0] for line in listed if line.startswith("  ")]
    assert words == list(COMMANDS)


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_explains_itself(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: ffsd {word} ")
    assert COMMANDS[word][0].removesuffix(".__main__") in import_module(COMMANDS[word][0]).__name__


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ffsd re", ["report", "records"]),
        ("ffsd run --re", ["--resume"]),
        ("ffsd run jobs/q", ["jobs/quickstart.yaml"]),
        ("ffsd report --format la", ["latex"]),
        ("ffsd records v", ["verify"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], script: Path) -> None:
    *_, last = words = line.split()
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_ffsd ffsd {last}; echo "${{COMPREPLY[@]}}"'
    command = ["bash", "-c", f"source {script}; {ask}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT).stdout.split() == offered


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion of bash."""
    file = tmp_path_factory.mktemp("completion") / "ffsd"
    file.write_text(completion("bash"))
    return file


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ffsd_ray {ffsd_ray.__version__}\n"


def test_a_word_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        main(["rum", "job.yaml"])
    assert "no command 'rum': did you mean run?" in capsys.readouterr().err


def test_as_a_process(tmp_path: Path) -> None:
    """Its status and its messages are those of the module's own command."""
    command = [sys.executable, "-m", "ffsd_ray", "run", str(tmp_path / "nothing.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{tmp_path}/nothing.yaml")


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert capsys.readouterr().out.startswith("usage: ffsd bench ")


def test_a_command_searches_for_garbage_though_its_imports_did_not() -> None:
    code = (
        "import gc\n"
        "from ffsd_ray import garbage\n"
        "from ffsd_ray.command import command\n"
        "garbage.pause()\n"
        "assert not gc.isenabled()\n"
        "@command\n"
        "def main(argv=None):\n"
        "    return 7 if gc.isenabled() and gc.get_freeze_count() else 1\n"
        "raise SystemExit(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_a_command_called_from_python_leaves_garbage_to_the_process() -> None:
    before = gc.get_freeze_count()
    main(["completion", "bash"])
    assert gc.isenabled()
    assert gc.get_freeze_count() <= before  # one that is no longer referred to goes
