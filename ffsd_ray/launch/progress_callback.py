"""A Tune callback that tells the progress view, and the records of a trial around which Ray fails."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from ffsd_ray.errors import DamagedRecords
from ffsd_ray.launch.causes import cause_in
from ffsd_ray.launch.search.optuna_search import Announce, spec_of
from ffsd_ray.progress_view import View
from ffsd_ray.records.run import RunRecords


class ViewCallback(tune.Callback):
    """Hands Tune's events to the view. A trial's name, its `str`, is its identity."""

    def __init__(self, run: RunRecords, view: View, labels: Mapping[str, str], announce: Announce) -> None:
        self._run, self._view, self._labels, self._announce = run, view, labels, announce

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks in a state that is never read again; a view cannot be saved

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "chosen" in trial.config:
            self._announce(spec_of(trial.config))
        done = self._run.trial(str(trial)).epochs_done()
        self._view.started(str(trial), trial.config["trial"]["spec"]["train"]["epochs"], done)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            self._view.epoch(str(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        records = self._run.trial(str(trial))
        if records.state() == "unfinished":  # a scheduler has ended it
            try:
                records.stop()
            except DamagedRecords as error:
                records.fail(type(error).__name__, str(error))
        state = records.state()
        self._view.ended(str(trial), state, records.error()["message"] if state == "failed" else "")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = self._labels[str(trial)]
        self._view.warned(f"{name}: its process failed ({_why(trial)}); it is begun again from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # The trial function records what training ends with; this is all else that may happen in its process.
        records = self._run.trial(str(trial))
        message = f"the trial's process failed: {_why(trial)} (all of it: {records.store.location}/error.json)"
        records.fail("TrialProcessFailed", message, Path(trial.error_file).read_text())
        self._view.ended(str(trial), "failed", message)


def _why(trial: Any) -> str:
    """The last of what Tune has written of the trial's failures: an exception, or how its process ended."""
    return cause_in(Path(trial.error_file).read_text())
