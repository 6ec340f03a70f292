"""A run as one page that opens offline: python -m ffsd_ray.report RUN --html FILE."""

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store, parallel_map
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.page.charts import charts_of_classes, charts_of_epochs, charts_of_settings
from ffsd_ray.report.page.trials import About
from ffsd_ray.report.plots.style import GRID, INK, MUTED, PAPER, check_file, check_installed
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import Table
from ffsd_ray.report.tables.text import PLUS_MINUS
from ffsd_ray.terminal import plain

#: The page's colours in place of a picture's, so that charts are read on dark ground too.
_COLOURS = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
#: Seconds after which a page that is rewritten while it is looked at loads itself again.
_RELOAD = 30


def write_page(run: RunRecords, table: Table, trials: Sequence[Trial], out: str, *, watched: bool = False) -> Path:
    """Tables, charts, specs, environments and the job file of the `trials` that `table` is of; whole or not at all.

    `watched`: the page says when it was written, and loads itself again.

    Raises:
        JobError: the file cannot be such a page.
        UserError: plotly is missing.
        StorageError: the file cannot be written.
    """
    path = Path(out)
    check_file(path, (".html", ".htm"), "--html")
    check_installed("plotly")
    Store(str(path.absolute().parent)).write(path.name, _page(run, table, trials, watched).encode())
    return path


def _page(run: RunRecords, table: Table, trials: Sequence[Trial], watched: bool) -> str:
    from plotly.offline import get_plotlyjs

    names = run.labels(trial.spec for trial in trials)
    abouts = parallel_map(lambda trial: About.read(run, trial, names[trial.spec.identity()]), trials)
    drawn, glance, part = table.first_epoch, Summary(table), files(__package__)
    scripts = [get_plotlyjs(), (part / "page.js").read_text("utf-8")]
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        finalize=_cleaned,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        title=table.title,
        table=table.text(),
        glance=glance.text(),
        verdict=glance.verdict(),
        days=sorted({about.began[:10] for about in abouts if about.began}),
        written=time.strftime("%H:%M:%S") if watched else "",
        reload=_RELOAD,
        plus_minus=PLUS_MINUS,
        trials=abouts,
        settings=charts_of_settings(drawn),
        training=charts_of_epochs(run, drawn),
        classes=charts_of_classes(drawn),
        environments=Counter(about.environment for about in abouts if about.environment),
        job=run.text(),
        overrides=run.overrides(),
        style=Markup((part / "page.css").read_text("utf-8")),
        colours=_COLOURS,
        # As they are, letter by letter: the only scripts that a browser will run here, by their digests.
        scripts=list(map(_Script, scripts)),
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


class _Script(Markup):
    """A part of the page that is not cleaned."""


def _cleaned(value: object) -> str:
    """What a template puts in, cleaned by `plain`; jinja2 then escapes it, unless it is markup."""
    if isinstance(value, _Script):
        return value
    text = plain(str(value))
    return Markup(text) if isinstance(value, Markup) else text
