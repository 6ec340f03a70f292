"""What every command shares."""

import functools
import sys
from collections.abc import Sequence
from typing import Protocol

from ffsd_ray.errors import UserError


class Main(Protocol):
    """A command: its arguments (None: the process's own) to its exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(main: Main) -> Main:
    """Make a command print a user's error as one message and return its status."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            print(error, file=sys.stderr)
            return error.status

    return run
