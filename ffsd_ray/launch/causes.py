"""The cause of a failed trial in one line: Ray wraps an exception several times, and adds tracebacks."""

import re

from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError

from ffsd_ray.errors import summary

#: Where an exception stands in a traceback: its name at the start of a line, then what it says.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b(: .*)?$")


def cause_of(error: BaseException) -> str:
    """The original exception of a failed training: its type and the first line of its message."""
    inner: BaseException | None = None
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        inner = error.worker_failures[min(error.worker_failures)]
    elif isinstance(error, ControllerError):
        inner = error.controller_failure
    elif isinstance(error, RayTaskError):
        inner = error.cause
    elif not isinstance(error, RayError | TrainingFailedError):
        # What Ray Train wraps a worker's exception in, and the end of a worker that no longer answers.
        inner = getattr(error, "_base_exc", None) or getattr(error, "health_check_failure", None)
    if isinstance(inner, BaseException) and inner is not error:
        return cause_of(inner)
    return summary(error)


def cause_in(traceback: str) -> str:
    """The last exception in a text, or its last line. What an exception says on further lines is left out."""
    lines = [line.strip() for line in traceback.strip().splitlines() if line.strip()]
    error_lines = [line for line in traceback.splitlines() if _EXCEPTION.match(line)]
    return (error_lines or lines or ["no reason is known"])[-1]
