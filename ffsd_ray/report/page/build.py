"""A run as one page that opens offline: python -m ffsd_ray.report RUN --html FILE."""

import base64
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from string import Template
from xml.etree.ElementTree import Element

from ffsd_ray.config.labels import trial_labels
from ffsd_ray.errors import JobError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.page.markup import html, tag
from ffsd_ray.report.page.pictures import over_settings, training
from ffsd_ray.report.page.trials import About, environments, failures, specs
from ffsd_ray.report.plots.style import check_picture
from ffsd_ray.report.tables.table import Table
from ffsd_ray.report.tables.text import PLUS_MINUS, Section, TableText

#: With more columns than this, ± goes below its mean.
_ROOMY = 11


def write_page(run: RunRecords, table: Table, trials: Sequence[Trial], out: str) -> Path:
    """Tables, pictures, training curves, specs, environments and the job file of the `trials` that `table` is of.

    Raises:
        UserError: matplotlib is missing.
        JobError: the file cannot be such a page.
    """
    path = Path(out)
    check_picture(path, (".html", ".htm"), "--html")
    text = _page(run, table, trials)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"--html {out}: cannot be written: {error.strerror}") from error
    return path


def _page(run: RunRecords, table: Table, trials: Sequence[Trial]) -> str:
    names = trial_labels([trial.spec for trial in trials], run.job().get("report", {}).get("rows"))
    with ThreadPoolExecutor(16) as pool:
        abouts = list(pool.map(lambda trial: About.read(run, trial, names[trial.spec.identity()]), trials))
    drawn = table.first_epoch
    sections = {
        "Results": _results(table.text()),
        "Failures and holes": failures(abouts),
        "Accuracy over settings": over_settings(drawn),
        "Training curves": training(run, drawn),
        "Trials": specs(abouts),
        "Environment": environments(abouts),
        "Job file": _job(run),
    }
    kept = {title: content for title, content in sections.items() if content}
    header = tag("header", tag("h1", table.title), _states(abouts), tag("nav", *map(_link, kept)))
    main = tag(
        "main", *(tag("section", tag("h2", title), *content, id=_anchor(title)) for title, content in kept.items())
    )
    part = files(__package__)
    script = (part / "page.js").read_text("utf-8")
    return Template((part / "page.html").read_text("utf-8")).substitute(
        title=html([tag("title", table.title)]),
        style=(part / "page.css").read_text("utf-8"),
        script=script,
        # The only script that a browser will run here.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        body=html([header, main]),
    )


def _states(abouts: Sequence[About]) -> Element:
    counts = {state: sum(about.state == state for about in abouts) for state in ("completed", "failed", "unfinished")}
    badges = [tag("span", f"{count} {state}", class_=f"badge {state}") for state, count in counts.items() if count]
    return tag("p", f"{len(abouts)} trials: ", *badges, class_="states")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _link(title: str) -> Element:
    return tag("a", title, href=f"#{_anchor(title)}")


def _results(sheet: TableText) -> list[Element]:
    captions = [tag("p", caption, class_="caption") for caption in sheet.captions]
    tables = [_table(sheet, section) for section in sheet.sections]
    notes = [tag("p", f"[{number}] {note}", class_="note") for number, note in enumerate(sheet.notes, 1)]
    return [*captions, *tables, *notes]


def _table(sheet: TableText, section: Section) -> Element:
    heads = [section.title or sheet.head[0], *sheet.head[1:]]
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    rows = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(_cell(text, index < sheet.words) for index, text in enumerate(row[1:], 1)),
        )
        for row in section.rows
    ]
    look = "sortable narrow" if len(heads) > _ROOMY else "sortable"
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_=look)
    return tag("div", table, class_="wide tall")


def _cell(text: str, is_words: bool) -> Element:
    mean, plus_minus, std = text.partition(PLUS_MINUS)
    spread: list[Element | str] = [" ", tag("small", f"{plus_minus.strip()} {std}")] if plus_minus else []
    return tag("td", mean, *spread) if is_words else tag("td", mean, *spread, class_="number")


def _job(run: RunRecords) -> list[Element]:
    overrides = run.overrides()
    said = [tag("p", "Set on the command line: ", tag("code", " ".join(overrides)))] if overrides else []
    return [*said, tag("pre", run.text())]
