"""The READMEs: commands have the options that are shown, job files load, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from ffsd_ray.command import COMMANDS
from ffsd_ray.config.load import load_job

from helpers.paths import PROJECT

READMES = [PROJECT / "README.md", *sorted(PROJECT.glob("*/README.md")), *sorted(PROJECT.glob("ffsd_ray/*/README.md"))]
ALL = pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(PROJECT)))


def blocks(readme: Path, language: str = "") -> list[str]:
    """The code blocks in a language."""
    fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", readme.read_text(), re.M | re.S)
    return [block for written_in, block in fences if written_in == language]


def commands(readme: Path) -> Iterator[tuple[str, list[str]]]:
    """Modules that are called in code blocks or inline, each with its options."""
    inline = re.findall(r"`((?:python -m ffsd_ray|ffsd (?:--plugin \S+ )?[a-z])[^`]*)`", readme.read_text())
    lines = [
        line
        for block in blocks(readme)
        for line in re.findall(r"(?:python -m ffsd_ray\S*|^ffsd(?= --plugin| [a-z]+ )) .*", block, re.M)
    ]
    for line in [*inline, *lines]:
        words = shlex.split(re.sub(r"[\[\]|]", " ", line), comments=True)
        if words[0] == "ffsd":
            words = words[3:] if words[1] == "--plugin" else words[1:]
            module = COMMANDS[words[0]][0].removesuffix(".__main__")
        else:
            module = words[words.index("-m") + 1]
        yield module, [word.partition("=")[0] for word in words if word.startswith("--")]


@ALL
def test_commands_have_their_options(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module, options in commands(readme):
        file = PROJECT / module.replace(".", "/")
        found = import_module(f"{module}.__main__" if file.is_dir() else module)
        with pytest.raises(SystemExit):
            found.main(["--help"])
        known = re.findall(r"--[a-z-]+", capsys.readouterr().out)
        assert set(options) <= set(known), module


@ALL
def test_job_files_load(readme: Path, tmp_path: Path) -> None:
    """Those that are whole; methods and images that the reader is to bring are put in their place."""
    for text in blocks(readme, "yaml"):
        if re.search(r"^name: ", text, re.M):
            job = tmp_path / "job.yaml"
            text = re.sub(r"\{name: image_folder[^}]*\}", "{name: digits, validation: 0.1}", text)
            job.write_text(text.replace(", {name: mean}", ""))
            assert load_job(job).trials


@ALL
def test_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("https://") or (readme.parent / target).exists(), target


def test_the_first_one_is_read_in_five_minutes() -> None:
    assert len(READMES[0].read_text().split()) <= 1200
