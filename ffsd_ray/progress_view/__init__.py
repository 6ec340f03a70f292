"""The progress view of a job: live on a terminal and in a notebook, plain lines elsewhere."""

from collections.abc import Mapping

from rich.console import Console

from ffsd_ray.job_progress import JobProgress
from ffsd_ray.progress_view.live import LiveView
from ffsd_ray.progress_view.notebook import NotebookView
from ffsd_ray.progress_view.plain import PlainView
from ffsd_ray.progress_view.view import View

__all__ = ["LiveView", "NotebookView", "PlainView", "View", "open_view"]


def open_view(
    console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], progress: JobProgress
) -> View:
    """The view that suits the console.

    `primary_series`: the series whose test accuracy is shown, by the identity of the trials that are to run; `labels`:
    names by identity; `progress`: the job's, which the view keeps.
    """
    kind = NotebookView if console.is_jupyter else LiveView if console.is_terminal else PlainView
    return kind(console, labels, primary_series, progress)
