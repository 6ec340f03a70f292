"""The page of a run: from records alone, and in a browser without a network."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.__main__ import main
from ffsd_ray.report.collect import collect
from ffsd_ray.report.page import build
from ffsd_ray.report.page.build import write_page
from ffsd_ray.report.page.charts import Chart
from ffsd_ray.report.page.over_settings import heat_map, parallel, sweep
from ffsd_ray.report.plots.heatmap import HeatMap
from ffsd_ray.report.plots.heatmap import Panel as Map
from ffsd_ray.report.plots.parallel_coordinates import Line, Parallel
from ffsd_ray.report.plots.sweep import Curves, Panel
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import Table, result_table
from ffsd_ray.report.tables.text import Section, TableText
from ffsd_ray.run import main as run_job

from helpers.synthetic_records import Outcome, result, write_run

pytest.importorskip("plotly", reason="the extra `plot` is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "</pre><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
#: Besides: clears a terminal's screen, and turns text around; and as it is read.
HOSTILE = f"{ATTACK} ' \" &amp; {{{{ title }}}} \x1b[2J\u202egnp.exe"
READ = f"{ATTACK} ' \" &amp; {{{{ title }}}} \\x1b[2J\\u202egnp.exe"
#: Fig. 6 in small: n = 2..5 of dml, two formulations of ffsd, 2 seeds, and two baselines.
FIG6 = f"""# {ATTACK}
name: fig6
data: {{name: digits}}
backbone: {{name: resnet8}}
seed: [0, 1]
search:
  grid: {{method.students: [2, 3, 4, 5], method.name: [dml]}}
  also:
  - method: {{name: baseline}}
  - method: {{name: ffsd, formulation: published}}
  - method: {{name: ffsd, formulation: paper}}
"""
SMALL = """
name: small
context: local
data: {name: digits, image_size: 8}
backbone: {name: resnet8}
method: {name: ffsd}
train: {epochs: 2, batch_size: 32, steps_per_epoch: 3}
scale: {threads: 1}
seed: [0, 1]
search: {also: [{method: {name: baseline}}]}
"""


def outcome(spec: TrialSpec) -> Outcome:
    """Accuracies rise with n; one trial failed, one was not finished, one not begun."""
    students = getattr(spec.method, "students", 0)
    if spec.seed == 1 and spec.method.name == "dml" and students > 2:
        return {3: f"it diverged {ATTACK}\nin epoch 4 of 10", 4: None, 5: ...}[students]
    return result(spec, 90.0 + students + spec.seed, 80.0)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    return partial(write_run, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    """A run that really trained."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "job.yaml").write_text(SMALL)
    assert run_job([str(folder / "job.yaml"), "--storage", str(folder)]) == 0
    return RunRecords.open(str(folder / "small"))


def page_of(run: RunRecords, *flags: str) -> Path:
    out = Path(run.store.location).with_suffix(".html")
    assert main([run.store.location, "--html", str(out), *flags]) == 0
    return out


class Page(HTMLParser):
    """Tags, their attributes' values, the text and the scripts of a page, and what its charts are drawn from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.charts: list[dict[str, Any]] = []
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._script = dict(attrs).get("type") or "" if tag == "script" else None
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        elif not self._script:
            self.scripts.append(data)
        elif "layout" in (content := json.loads(data)):
            self.charts.append(content)

    def handle_endtag(self, tag: str) -> None:
        self._script = None


def texts(content: object) -> list[str]:
    """Every text in a chart."""
    if isinstance(content, str):
        return [content]
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [text for value in values for text in texts(value)]


def test_a_page_holds_the_whole_run(write: Any) -> None:
    run = write(FIG6, outcome)
    page = Page(page_of(run).read_text())
    table = result_table(run)
    for row in table.rows:
        assert row.configuration in page.text
        for cell in row.cells.values():
            assert cell.text() in page.text
    for said in (*table.captions, *table.notes, run.text(), *table.text().head[1:]):
        assert said in page.text
    assert Summary(table).verdict() in page.text
    assert page.ids.index("at-a-glance") < page.ids.index("results")
    assert "14 trials: 11 completed1 failed2 unfinished" in page.text
    assert "in epoch 4 of 10" in page.text
    assert "dml n=4, seed 1: not finished" in page.text
    assert "dml n=5, seed 1: not begun" in page.text
    assert len(page.charts) == 2, "over n, and the members of each group"
    assert ("class", "sortable narrow") in page.attributes
    assert page.text.count("formulation: paper") == 3, "the specs of two trials, and the job file"


def test_a_page_loads_nothing(write: Any) -> None:
    text = page_of(write(FIG6, outcome)).read_text()
    page = Page(text)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "data", "action")]
    assert links
    assert set(links) <= {f"#{identity}" for identity in page.ids}
    assert len(set(page.ids)) == len(page.ids)
    without_library = text.replace(page.scripts[0], "")
    assert "url(" not in without_library
    assert "@import" not in without_library
    assert not {"img", "image", "link", "iframe", "object"} & set(page.tags)
    assert len(text) < 5_500_000


def test_whatever_a_name_or_a_message_holds_is_text(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every place of the page, and without what acts on whoever reads it."""
    places: list[str] = []

    def hostile(place: str) -> str:
        places.append(place)
        return f"{place}: {HOSTILE}"

    classes = [hostile("class"), hostile("other class")]
    confusion = {"confusion": {name: {name: 1} for name in classes}}

    def outcome(spec: TrialSpec) -> Outcome:
        return f"{hostile('error')}\n{hostile('more')}" if spec.seed else result(spec, 90.0, 80.0) | confusion

    run = write(SMALL, outcome)
    table, trials = result_table(run), collect(run)
    device = {"type": "cpu", "name": hostile("device"), "workers": 1, "threads": 1}
    facts = {"device": device, "versions": {hostile("package"): hostile("version")}, "began": hostile("began")}
    run.trial(trials[0].spec.identity()).begin(trials[0].spec.model_dump(), facts)
    run.store.write("job.yaml", hostile("job").encode())
    monkeypatch.setattr(RunRecords, "overrides", lambda self: [hostile("override")])
    monkeypatch.setattr(RunRecords, "labels", lambda self, specs: dict.fromkeys(run.specs(), hostile("label")))
    section = Section(hostile("section"), ((hostile("row"), f"{hostile('cell')} ± {hostile('deviation')}"),))
    head = ("Configuration", hostile("head"))
    shown = TableText("", (hostile("caption"),), head, (section,), (hostile("note"),))
    monkeypatch.setattr(Table, "text", lambda self: shown)
    cell, value, other = Cell(90.0, 1.0), hostile("value"), hostile("other value")
    panel = Panel(hostile("panel"), {"Leader": {value: cell}}, cell, {value: 2}, frozenset())
    lines = sweep(Curves("", (), hostile("key"), (value,), (panel, panel)))
    place = (value, other)
    mapped = Map("", {place: cell}, {place: 2}, place, None)
    heat = HeatMap("", (), (hostile("across"), hostile("down")), ((value,), (other,)), (mapped,), hostile("series"))
    line = Line(place, cell, 2)
    drawn = Parallel("", (), (hostile("first"), hostile("second")), ((value,), (other,)), (line,), line, "Leader")
    figures = (("", lines), (hostile("map"), heat_map(heat, mapped)), ("", parallel(drawn)))
    chart = Chart(hostile("chart"), (hostile("its caption"),), figures)
    monkeypatch.setattr(build, "charts_of_settings", lambda drawn: [chart])
    title = hostile("title")

    text = write_page(run, replace(table, title=title), trials, str(tmp_path / "page.html")).read_text()
    page = Page(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text.replace(page.scripts[0], ""))
    in_charts = [" ".join(text.replace("<br>", " ").split()) for text in texts(page.charts)]
    assert not [text for text in in_charts if re.search("<(?!/?b>|/?extra>)", text)], "Plotly takes it for markup"
    read = page.text + " ".join(map(html.unescape, in_charts))
    assert [place for place in places if f"{place}: {READ}" not in read] == []
    assert page.text.count(f"title: {READ}") == 4, "the tab, the heading and two charts"
    assert {value for name, value in page.attributes if name == "aria-label"} == {
        f"chart: {READ}",
        f"title: {READ}: members of a group after each epoch",
        f"title: {READ}: test images by true and predicted class",
    }
    assert len(page.scripts) == 2
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_s_own_scripts_are_those_that_may_run(write: Any) -> None:
    out = page_of(run := write(SMALL, lambda spec: result(spec, 90.0, 80.0)))
    text = out.read_bytes()
    page = Page(text.decode())
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts]
    assert "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests) + '"' in text.decode()
    assert len(digests) == 2
    assert ("class", "sortable") in page.attributes
    assert "Failures and holes" not in page.text, "there are none"
    assert page_of(run).read_bytes() == text, "the same records make the same page"


@pytest.mark.thorough
def test_one_epoch(write: Any) -> None:
    page = Page(page_of(write(FIG6, outcome), "--epoch", "last").read_text())
    assert "Last epoch" in page.text
    assert "Best epoch" not in page.text
    assert "accuracy against method.students, last epoch" in page.text


@pytest.mark.parametrize(
    ("out", "said"), [("page.pdf", "should end in .html"), ("nowhere/page.html", "there is no folder")]
)
def test_a_file_that_cannot_be(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    run = write(FIG6, outcome)
    assert main([run.store.location, "--html", str(tmp_path / out)]) == 2
    assert f"--html {tmp_path / out}: " in (message := capsys.readouterr().err)
    assert said in message


def browse(page: Path, *flags: str) -> str:
    """What Chromium prints of a page; there is no network for it."""
    assert CHROMIUM is not None
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *offline,
        f"--user-data-dir={page.parent}/profile",
    ]
    return subprocess.run(
        [*command, "--virtual-time-budget=3000", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout


#: Put into a copy of the page, with leave to run: writes down what a reader would see, sorts the first table, and hides
#: the first series of the first chart.
PROBE = """<script>
const box = (element) => { const b = element.getBoundingClientRect(); return [b.width, b.height].map(Math.round); };
const table = document.querySelector("table.sortable");
const column = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === "Gain");
table.tHead.rows[0].cells[0].click(); table.tHead.rows[0].cells[0].click();
const rising = table.tBodies[0].rows[0].cells[0].textContent;
table.tHead.rows[0].cells[column].click();
const chart = document.querySelector(".chart");
const click = (type) => chart.querySelector(".legendtoggle").dispatchEvent(new MouseEvent(type, { bubbles: true }));
click("mousedown"); click("mouseup");
setTimeout(() => { document.body.dataset.probe = JSON.stringify({
  charts: [...document.querySelectorAll(".chart .main-svg:first-child")].map(box),
  legend: [...chart.querySelectorAll(".legendtext")].map((text) => text.textContent),
  hidden: chart.data[0].visible,
  sideways: document.documentElement.scrollWidth > innerWidth,
  loaded: performance.getEntriesByType("resource").length,
  rising, best: table.tBodies[0].rows[0].cells[0].textContent,
}); }, 1500);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.thorough
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_real_run_in_a_browser(trained: RunRecords, tmp_path: Path, theme: str) -> None:
    run, page = trained, page_of(trained)
    dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    picture = tmp_path / "page.png"
    browse(page, "--window-size=1280,2400", f"--screenshot={picture}", *dark)
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (1280, 2400)
        corner = image.convert("L").getpixel((2, 2))
        assert isinstance(corner, int)
        assert (corner > 200) == (theme == "light")
        assert len(image.convert("RGB").getcolors(2**24) or []) > 100

    dom = Page(browse(page, "--dump-dom", *dark))
    leader = next(row for row in result_table(run).rows if "Leader" in row.cells).cells["Leader"]
    assert leader.text() in dom.text
    assert "small: test accuracy after each epoch" in dom.text
    assert dom.tags.count("canvas") == 0
    assert [value for name, value in dom.attributes if name == "class"].count("main-svg") > 3, (
        "the policy lets them draw"
    )

    probed = tmp_path / "probed.html"
    probed.write_text(re.sub(r"<meta http-equiv[^>]*>", "", page.read_text()).replace("</body>", PROBE))
    (said,) = (value for name, value in Page(browse(probed, "--dump-dom", *dark)).attributes if name == "data-probe")
    seen = json.loads(said)
    assert len(seen["charts"]) == 4
    assert all(width > 300 and height > 150 for width, height in seen["charts"])
    assert seen["legend"] == ["ffsd n=2", "baseline"]
    assert seen["hidden"] == "legendonly"
    assert not seen["sideways"]
    assert seen["loaded"] == 0
    assert seen["rising"] == "baseline"
    assert seen["best"] == "ffsd n=2"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.thorough
def test_a_browser_runs_no_script_but_the_page_s(write: Any) -> None:
    """Even where the escaping would fail."""
    page = page_of(write(FIG6, outcome))
    page.write_text(page.read_text().replace("<header>", f"{ATTACK}<header>"))
    dom = browse(page, "--dump-dom")
    assert "<title>fig6</title>" in dom
    assert 'title="sort"' in dom
