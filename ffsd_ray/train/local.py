"""Trials one after another in this process, without Ray."""

import traceback
from collections.abc import Sequence

import torch

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DataError, TrialError, UserError, summary
from ffsd_ray.progress_view import View
from ffsd_ray.records.run import RunRecords
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.context import LocalContext
from ffsd_ray.train.device import release_memory
from ffsd_ray.train.trainer import train


class _ViewedContext(LocalContext):
    def __init__(self, device: torch.device, view: View, identity: str) -> None:
        super().__init__(device)
        self._view, self._identity = view, identity

    def report(self, row: HistoryRow) -> None:
        self._view.epoch(self._identity, row)


def run_locally(trials: Sequence[TrialSpec], job: JobSpec, run: RunRecords, view: View) -> None:
    """Train every trial; one that fails is recorded as failed, and the others go on."""
    for spec in trials:
        identity = spec.identity()
        records = run.trial(identity)
        view.started(identity, spec.train.epochs, records.epochs_done())
        device = torch.device("cuda" if spec.scale.uses_gpu else "cpu")
        message = ""
        try:
            train(
                spec,
                records,
                _ViewedContext(device, view, identity),
                keep_checkpoints=job.records.keep_checkpoints == "all",
            )
        except (TrialError, DataError) as error:
            message = str(error)
            records.fail(type(error).__name__, message)
        except (UserError, KeyboardInterrupt):  # of storage, which the other trials would meet as well; of the user
            raise
        except BaseException as error:  # SystemExit too: a library that gives up ends its trial, not the others
            message = summary(error)
            records.fail("TrainingFailed", message, traceback.format_exc())
        release_memory()
        view.ended(identity, records.state(), message)
