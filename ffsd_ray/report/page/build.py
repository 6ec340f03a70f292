"""A run as one page that opens offline: python -m ffsd_ray.report RUN --html FILE."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ffsd_ray.errors import JobError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.page.pictures import over_settings, training
from ffsd_ray.report.page.trials import About
from ffsd_ray.report.plots.style import check_picture
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import Table
from ffsd_ray.report.tables.text import PLUS_MINUS
from ffsd_ray.terminal import plain


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
    names = run.labels(trial.spec for trial in trials)
    with ThreadPoolExecutor(16) as pool:
        abouts = list(pool.map(lambda trial: About.read(run, trial, names[trial.spec.identity()]), trials))
    drawn, glance, part = table.first_epoch, Summary(table), files(__package__)
    script = (part / "page.js").read_text("utf-8")
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
        plus_minus=PLUS_MINUS,
        trials=abouts,
        settings=over_settings(drawn),
        training=training(run, drawn),
        environments=Counter(about.environment for about in abouts if about.environment),
        job=run.text(),
        overrides=run.overrides(),
        style=Markup((part / "page.css").read_text("utf-8")),
        script=Markup(script),
        # The only script that a browser will run here.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _cleaned(value: object) -> str:
    """What a template puts in, cleaned by `plain`; jinja2 then escapes it, unless it is markup."""
    text = plain(str(value))
    return Markup(text) if isinstance(value, Markup) else text
