"""Completion of `ffsd` by a shell, of commands, options and files: `ffsd completion bash`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import shtab

from ffsd_ray.command import COMMANDS, command

#: Where each shell looks for the script.
_FILES = {
    "bash": "~/.local/share/bash-completion/completions/ffsd",
    "zsh": "~/.zfunc/_ffsd (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)",
    "fish": "~/.config/fish/completions/ffsd.fish",
}

#: What stands in help for arguments that are files or folders, or may be URIs as well.
_PATHS = {"RUN", "FILE", "PICTURE", "DIR|URI"}


def completion(shell: str) -> str:
    """The script for one of the shells in `_FILES`."""
    ffsd = argparse.ArgumentParser(prog="ffsd")
    ffsd.add_argument("--version", action="store_true", help="print the version")
    words = ffsd.add_subparsers()
    for word, (module, meaning) in COMMANDS.items():
        parser = import_module(module).build_parser()
        for action in _actions(parser):
            if action.type is Path or action.metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        words.add_parser(word, help=meaning, description=meaning, parents=[parser], add_help=False)
    return shtab.complete(ffsd, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd completion",
        description="Print a script by which a shell completes commands, options and files.",
        epilog="Write it to " + "; ".join(f"{shell}: {file}" for shell, file in _FILES.items()) + ".",
    )
    parser.add_argument("shell", choices=list(_FILES))
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    print(completion(build_parser().parse_args(argv).shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
