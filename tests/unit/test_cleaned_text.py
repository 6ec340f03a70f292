"""Text from elsewhere (names of files, classes and variants, keys, exceptions) does nothing but be read."""

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.table import Table
from rich.text import Text

import ffsd_ray
from ffsd_ray.classify import main as classify
from ffsd_ray.command import command
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import UserError
from ffsd_ray.job_progress import JobProgress
from ffsd_ray.progress_view import open_view
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main as report
from ffsd_ray.report.tables.export import escaped, render_csv
from ffsd_ray.report.tables.text import Section, TableText
from ffsd_ray.run import main as run
from ffsd_ray.terminal import PlainStream, Screen, plain

from helpers.small_run import write_json
from helpers.synthetic_records import result, write_run

#: Clears the screen, sets the window's title, the first in eight bits too, turns text around, begins lines.
ACTS = "\x1b[2J\x1b]0;title\x07\x9b2J\u202eabc\u2066\u2028\x08\r\x85\x7f\udc80\U000e0041"
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
JOB = """\
name: good
data: {name: digits, image_size: 8, validation: 0.1}
backbone: {name: resnet20}
method: {name: ffsd, students: 2}
train: {epochs: 4}
"""


def harmless(text: str) -> bool:
    return ACTING.search(text) is None


def test_the_cleaning() -> None:
    assert (
        plain(ACTS) == "\\x1b[2J\\x1b]0;title\\x07\\x9b2J\\u202eabc\\u2066\\u2028\\x08\\r\\x85\\x7f\\udc80\\U000e0041"
    )
    assert plain("a\tb\nc") == "a\tb\nc"
    assert plain("a\tb\nc", keep="") == "a\\tb\\nc"
    assert plain("\x1b[1;31mred\x1b[0m") == "red"
    assert harmless(plain("\x1b\x1b[m[2J")), "what is left of it is no sequence either"
    for text in ("Zürich ± 0.5 × λ", "猫", "قط", "نمی\u200cخواهم", "👩\u200d💻", "é"):
        assert plain(text) == text
    for code in (*range(0x3000), *range(0xD000, 0xE100), *range(0xF000, 0x10000), *range(0xE0000, 0xE0100)):
        assert harmless(plain(chr(code), keep=""))


@command
def speaks(argv: Any = None) -> int:
    assert argv is not None
    print(f"out {argv[0]}")
    print(f"error {argv[0]}", file=sys.stderr)
    Screen().print(Text(f"rich {argv[0]}"))
    raise UserError(f"refused {argv[0]}")


def test_whatever_a_command_writes_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    assert speaks([ACTS]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"out {plain(ACTS)}"
    assert err == f"error {plain(ACTS)}\nrefused {plain(ACTS)}\n"
    assert harmless(out + err)
    assert (sys.stdout, sys.stderr) == streams


def test_a_traceback_too(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\nfrom ffsd_ray.command import command\n@command\ndef main(argv=None):\n"
        f"    raise RuntimeError({ACTS!a})\nsys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, check=False)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "RuntimeError: \\x1b[2J" in said
    assert harmless(said)


def test_consoles_keep_their_own_colours() -> None:
    out = io.StringIO()
    screen = Screen(PlainStream(out), force_terminal=True, color_system="standard", width=100)
    screen.print(Text(f"a{ACTS}b", style="bold red"))
    table = Table("name", title=ACTS)
    table.add_row(Text(ACTS, style="green"))
    screen.print(table)
    text = out.getvalue()
    assert "\x1b[1;31ma\\x1b[2J" in text
    assert harmless(re.sub("\x1b\\[[0-9;]*m", "", text))


@pytest.mark.parametrize("terminal", [False, True])
def test_views_are_clean(terminal: bool) -> None:
    out = io.StringIO()
    screen = Screen(out, force_terminal=terminal, width=200)
    with open_view(screen, {"1": f"name{ACTS}"}, {"1": "student"}, JobProgress({}, done=0, total=1)) as view:
        view.started("1", 2, 0)
        view.epoch("1", {"epoch": 1, "test/student/top1": 1.0, "images_per_second": 1.0})
        view.warned(f"warned {ACTS}\n12:00:00 [1/1] name: completed")
        view.ended("1", "failed", ACTS)
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]|\r", "", out.getvalue()) if terminal else out.getvalue()
    assert "warned \\x1b[2J" in text
    assert harmless(text)
    assert terminal or not re.search(r"^12:00:00 \[1/1\]", text, re.MULTILINE), "no line of its own"


def test_a_progress_bar_of_another_package_may_go_back_and_a_name_may_not() -> None:
    out = io.StringIO()
    stream = PlainStream(out)
    for text in ("\r 1 %", "\r 2 %", "\n", "name", "\rover it\n"):
        stream.write(text)
    assert out.getvalue() == "\r 1 %\r 2 %\nname\\rover it\n"
    assert not stream.isatty()


def test_only_the_cleaning_console_is_made() -> None:
    for file in Path(ffsd_ray.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert name not in ("Console", "rich.print", "get_console", "rich.get_console"), file
            assert name != "track" or file.name == "terminal.py", file


# ---- from where it may come


@pytest.fixture
def acting(tmp_path: Path) -> RunRecords:
    """Names of variants, errors and the job's text as an attacker would have them in a run's records."""

    def outcome(spec: TrialSpec) -> Any:
        return f"lost {ACTS[:-3]}\n\n=1" if spec.seed else result(spec, 90.0, 80.0, selection="val")

    records = write_run(
        tmp_path, JOB + "seed: [0, 1]\nsearch: {variants: {a: {train: {lr: 0.1}}, b: {train: {lr: 0.2}}}}\n", outcome
    )
    file = tmp_path / "run" / "job.json"
    content = json.loads(file.read_text())
    for identity, trial in content["trials"].items():
        trial["variant"] = f'=HYPERLINK("x") $\\q$ & % _ # * |{ACTS[:-3]}\n\nname: stolen {trial["variant"]}'
        spec = file.parent / "trials" / identity / "spec.json"
        write_json(spec, trial)
    write_json(file, content)
    return records


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "latex"])
def test_reports_of_foreign_records(acting: RunRecords, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([acting.store.location, "--format", form]) == 0
    out = capsys.readouterr().out
    assert harmless(out)
    if form == "latex":
        body = out[out.index(r"\begin{tabular}") : out.index(r"\end{tabular}")]
        assert "\n\n" not in body
        assert r"\& \% \_ \# {*} \textbar{}\textbackslash{}x1b{[}2J" in body
    if form == "markdown":
        rows = [line for line in out.splitlines() if "HYPERLINK" in line and line.startswith("|")]
        assert rows
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in out.splitlines() if line.startswith("|")}) == 1
    if form == "csv":
        cells = [cell for line in csv.reader(io.StringIO(out)) for cell in line]
        assert any("=HYPERLINK" in cell for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]


def test_the_page_and_the_best_job(acting: RunRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offline = pytest.importorskip("plotly.offline")
    page = tmp_path / "page.html"
    assert report([acting.store.location, "--html", str(page)]) == 0
    assert harmless(page.read_text(encoding="utf-8").replace(offline.get_plotlyjs(), ""))
    assert report([acting.store.location, "--best", str(tmp_path / "best.yaml")]) == 0
    text = (tmp_path / "best.yaml").read_text(encoding="utf-8")
    assert harmless(text)
    assert yaml.safe_load(text)["name"] == "good-best", "a name adds no key"


class Cells:
    """A table of one line of these cells, under the same names."""

    title = "cells"
    captions: tuple[str, ...] = ()
    damages: tuple[str, ...] = ()

    def __init__(self, *cells: str) -> None:
        self._cells = cells

    def text(self) -> TableText:
        return TableText(self.title, self.captions, self._cells, (Section("", (self._cells,)),), ())

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([self._cells], columns=list(self._cells))


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(1)", " =1", "-2+3", "=cmd|' /C calc'!A0"])
def test_no_cell_is_a_formula(text: str) -> None:
    head, [cell] = csv.reader(io.StringIO(render_csv(Cells(text)), newline=""))
    assert head == [cell] == [f"'{text}"]


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "a\r\n=1"])
def test_no_cell_begins_or_ends_in_its_middle(text: str) -> None:
    assert render_csv(Cells(text)).splitlines() == 2 * [plain(text, keep="")]


@pytest.mark.parametrize("number", ["-0.56", "+1.5", "1e-05", "-inf", "nan", "7", "", "a-b", "λ=1"])
def test_numbers_keep_their_sign(number: str) -> None:
    [[head, _], [cell, _]] = csv.reader(io.StringIO(render_csv(Cells(number, "x"))))
    assert head == cell == number


def test_latex_is_one_line() -> None:
    assert escaped("a\n\n\nb\t% & _ # * \x1b") == r"a b \% \& \_ \# {*} \textbackslash{}x1b"


@pytest.mark.parametrize("written", ['"\\e[2J\\u202E\\n1:1  fake": 1', 'train: {"\\x9b2J": 1}', 'name: "a\\e[2J"'])
def test_keys_and_values_of_job_files(written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("name: good\n", "") + written + "\n")
    assert run([str(job), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert harmless(err)
    assert not re.search("^1:1", err, re.MULTILINE)


def test_names_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(f"{tmp_path}/".encode() + "\x1b[2J\u202e\x9b".encode() + b"\xff.safetensors")
    Path(name).write_bytes(b"x")
    assert classify([name, name]) == 2
    assert run([name.replace("safetensors", "yaml"), "--dry-run"]) == 2
    assert report([name]) in (1, 2)
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert "\\x1b[2J\\u202e\\x9b\\udcff" in err
