"""Running functions in a process beside this one, which may fail, die or take too long."""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class Failed(Exception):
    """The function raised, or its process died. The message is the error's."""


class SubprocessRunner:
    """One process for all functions, and a new one after a failure: a GPU's context may be broken by it."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._process: Any = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def run(self, function: Callable[[], Any], seconds: float | None) -> Any:
        """Run `function` (picklable) in the other process and return its result.

        Raises:
            Failed: it raised, or its process died.
            TimeoutError: it took longer than `seconds`.
        """
        if self._connection is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(theirs,))
            self._process.start()
            theirs.close()
        try:
            self._connection.send(function)
            if not self._connection.poll(seconds):
                raise TimeoutError(f"took longer than {seconds:.0f} s")
            good, result = self._connection.recv()
        except (EOFError, OSError) as error:
            timed_out = isinstance(error, TimeoutError)
            self.end()
            if timed_out:
                raise
            raise Failed("its process died") from error
        except BaseException:
            self.end()
            raise
        if not good:
            self.end()
            raise Failed(result)
        return result

    def end(self) -> None:
        """End the process; the next function has a new one."""
        if self._connection is not None:
            self._connection.close()
            self._process.terminate()
            self._process.join()
            self._connection = None


def _serve(connection: Connection) -> None:
    while True:
        try:
            function = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, function()))
        except Exception as error:  # whatever it is, it is reported
            connection.send((False, f"{type(error).__name__}: {error}"))
