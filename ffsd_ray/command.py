"""The frame of every command: errors, signals, arguments and output."""

import argparse
import codecs
import functools
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from ffsd_ray import garbage, interruption
from ffsd_ray.errors import UserError
from ffsd_ray.terminal import plain_streams

#: The commands of `ffsd`: word, module and meaning. A module, which has `build_parser` and `main`, is imported only
#: where its word is given: most take seconds.
COMMANDS = {
    "init": ("ffsd_ray.init", "write a job file for a folder of pictures"),
    "run": ("ffsd_ray.run", "train every trial of a job file and print the table"),
    "report": ("ffsd_ray.report.__main__", "tables, plots and the page of a run"),
    "methods": ("ffsd_ray.report.methods", "accuracy, speed and memory of a run's configurations, a line each"),
    "cost": ("ffsd_ray.report.cost", "operations, parameters and hours of a run's groups"),
    "maps": ("ffsd_ray.report.maps", "where a run's networks look, drawn over images"),
    "evaluate": ("ffsd_ray.evaluate", "measure a trained network again, class by class"),
    "classify": ("ffsd_ray.classify", "name what a trained network sees in pictures"),
    "export": ("ffsd_ray.export", "a trained network as ONNX, TorchScript or torch.export"),
    "records": ("ffsd_ray.records.__main__", "verify that a run's records are as they were written"),
    "bench": ("ffsd_ray.bench.__main__", "time training steps"),
    "schema": ("ffsd_ray.schema", "the job file's JSON schema, for editors"),
    "completion": ("ffsd_ray.completion", "a script by which a shell completes these commands"),
}

#: What is written in place of a sign that a terminal or a file's encoding does not have.
_READABLE = {
    "±": "+-", "×": "x", "−": "-", "–": "-", "÷": "/", "…": "...", "→": "->", "✓": "ok", "✗": "failed", "≥": ">=",
    "≤": "<=", "λ": "lambda", "α": "alpha", "Σ": "sum", "Δ": "delta", "²": "^2", "·": "*", "━": "-", "─": "-",
    "│": "|", "╸": "-", "╺": "-",
}  # fmt: skip


class Main(Protocol):
    """A command: its arguments (None: the process's own) to its exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(main: Main) -> Main:
    """Make a command print what a user can mend as one message and return its status.

    That is a UserError, and a file that cannot be read or written. Where whoever reads the output has gone (`| head`)
    the command ends without a word; interrupted, with one line. Whatever it writes is cleaned of what a terminal would
    obey.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            _write_readably(stream)
        with plain_streams(restore=argv is not None):
            try:
                interruption.raise_interrupted()
                if argv is None:
                    garbage.resume()
                status = main(argv)
                sys.stdout.flush()
                interruption.ignore()
                return status
            except KeyboardInterrupt as error:
                interruption.ignore()
                sys.stdout.flush()
                print(str(error) or "Interrupted.", file=sys.stderr)
                return interruption.STATUS
            except UserError as error:
                print(error, file=sys.stderr)
                return error.status
            except BrokenPipeError:
                with open(os.devnull, "w") as nothing:
                    # else Python says at its end that it could not flush
                    os.dup2(nothing.fileno(), sys.stdout.fileno())
                return 1
            except OSError as error:
                if error.filename is None:
                    raise
                print(f"{os.fsdecode(error.filename)}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
                return UserError.status
            finally:
                interruption.ignore()

    return run


def parse_positional(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, name: str, *options: str
) -> argparse.Namespace:
    """Parse arguments so that the positional `name` may follow options that take any number of words.

    argparse leaves it to the option: in `--best RUN` as its optional FILE, in `--plot KEY RUN` as one more KEY.
    """
    [positional] = [action for action in parser._actions if action.dest == name]
    positional.required = False
    arguments = parser.parse_args(argv)
    for action in parser._actions:
        taken = getattr(arguments, action.dest, None)
        if getattr(arguments, name) is not None or action.dest not in options or taken in (None, [], action.const):
            continue
        given = taken.pop() if isinstance(taken, list) else taken
        setattr(arguments, name, positional.type(str(given)) if callable(positional.type) else str(given))
        if taken == []:
            parser.error(f"argument {'/'.join(action.option_strings)}: expected at least one argument")
        if not isinstance(taken, list):
            setattr(arguments, action.dest, action.const)
    if getattr(arguments, name) is None:
        parser.error(f"the following arguments are required: {positional.metavar}")
    return arguments


def _write_readably(stream: TextIO) -> None:
    """Have a stream write signs that its encoding lacks in other words, in place of raising."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    if isinstance(stream, io.TextIOWrapper) and not encoding.startswith("utf"):
        stream.reconfigure(errors="readable")


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(_READABLE.get(sign, "?") for sign in signs), error.end


codecs.register_error("readable", _in_other_words)
