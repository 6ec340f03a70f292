"""The progress of a job in a notebook."""

import io
import threading
from types import TracebackType
from typing import Any, Self

from ffsd_ray.progress_view.live import LiveView
from ffsd_ray.records.trial import State
from ffsd_ray.terminal import Screen

#: Of the output: columns, running and completed trials that are shown, and seconds until it is rewritten.
_COLUMNS, _SHOWN, _KEPT, _INTERVAL = 110, 20, 10, 1.0


class NotebookView(LiveView):
    """The live view as one output below a notebook's cell, which is rewritten: rich's own would need ipywidgets.

    The last trials that have completed are named in it; failures and warnings are outputs of their own, and stay.
    """

    def __enter__(self) -> Self:
        from IPython.display import display  # of the notebook that this runs in

        self._completed: list[str] = []
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._keep_showing, daemon=True)
        self._output = display(self._html(), display_id=True)
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._clock.join()
        self._output.update(self._html())

    def _keep_showing(self) -> None:
        while not self._over.wait(_INTERVAL):
            self._output.update(self._html())

    def _html(self) -> Any:
        from IPython.display import HTML

        page = Screen(io.StringIO(), record=True, force_jupyter=False, width=_COLUMNS)
        for line in self._completed[-_KEPT:]:
            page.print(line, markup=False, highlight=False, overflow="ellipsis", no_wrap=True)
        page.print(self._bars.get_renderable())
        return HTML(page.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))

    def _tell_end(self, state: State, line: str) -> None:
        if state == "completed":
            self._completed.append(line)
        else:
            self.warned(line)

    def _room(self) -> int:
        return _SHOWN
