"""The command `ffsd`, also `python -m ffsd_ray`: each of its words is a command, in a module of its own."""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from ffsd_ray import garbage, interruption
from ffsd_ray.command import COMMANDS
from ffsd_ray.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: the command's own, see its module; 2 where there is no such command."""
    if argv is None:
        interruption.end_at_once()
        garbage.pause()
    arguments = _parser().parse_args(argv)
    if arguments.command is None:
        _parser().print_help()
        return 0
    if arguments.plugin and (status := _load(arguments.plugin)):
        return status
    module, _ = COMMANDS[arguments.command]
    # A command that reads the process's arguments itself takes the process for its own, to the end.
    sys.argv[1:] = arguments.words
    ended: int = import_module(module).main(None if argv is None else arguments.words)
    return ended


def _load(names: Sequence[str]) -> int:
    """Load plugins, for the processes of a run too; 0, or the status of a message."""
    from ffsd_ray import plugins  # takes seconds

    os.environ[plugins.VARIABLE] = ",".join([*filter(None, [os.environ.get(plugins.VARIABLE)]), *names])
    try:
        plugins.load()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="ffsd",
        description="Train groups of students that teach each other, and use what comes of it.",
        epilog="commands:\n"
        + "\n".join(f"  {word:{width}}  {meaning}" for word, (_, meaning) in COMMANDS.items())
        + "\nffsd COMMAND --help explains one. Each is a module as well: python -m ffsd_ray.run JOB",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ffsd COMMAND ...",
    )
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_known, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument(
        "--plugin",
        metavar="MODULE",
        action="append",
        help="before COMMAND: methods, backbones, data of your own",
    )
    parser.add_argument("--version", action="version", version=f"ffsd_ray {_version()}")
    return parser


def _known(word: str) -> str:
    if word in COMMANDS:
        return word
    nearest = get_close_matches(word, COMMANDS, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(COMMANDS)}"
    raise argparse.ArgumentTypeError(f"no command {word!r}: {hint}")


def _version() -> str:
    try:
        return version("ffsd-ray")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
