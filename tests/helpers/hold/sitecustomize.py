"""Holds trainings where a test wants them. Python imports this in every process that has its folder on PYTHONPATH.

What a test controls is a file, see `holding.Hold`; a process that trains waits at the end of a step while it is there.
"""

import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes the training loop once a process has imported it; others pay nothing."""

    module = "ffsd_ray.train.engine"

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def and_hold(module: ModuleType) -> None:
            execute(module)
            _hold(module.Engine)

        spec.loader.exec_module = and_hold  # type: ignore[method-assign]
        return spec


def _hold(engine: Any) -> None:
    epoch = engine.epoch

    def held(self: Any, number: int, *arguments: Any, **options: Any) -> Iterator[int]:
        for done in epoch(self, number, *arguments, **options):
            _wait(self._spec.method.name, number, last=done == self.steps)
            yield done

    engine.epoch = held


def _wait(method: str, epoch: int, *, last: bool) -> None:
    file = Path(os.environ["FFSD_RAY_TEST_HOLD"])
    while True:
        try:
            asked, first, slowly = file.read_text().split()
        except (FileNotFoundError, ValueError):  # gone, or just being written
            return
        if method != asked or epoch < int(first):
            return
        (file.parent / "held" / str(os.getpid())).touch()
        time.sleep(0.1)
        if slowly == "slowly" and not last:
            return


if "FFSD_RAY_TEST_HOLD" in os.environ:
    sys.meta_path.insert(0, _AfterImport())
