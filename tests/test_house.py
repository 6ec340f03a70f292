"""The shape of the house: data goes one way through the rooms, and only one of them knows Ray."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffsd_ray.registry import by_name
from ffsd_ray.spec.job import JobSpec
from ffsd_ray.spec.keys import JOB_KEYS

PACKAGE = Path(__file__).resolve().parents[1] / "ffsd_ray"


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_the_launch_room_imports_ray() -> None:
    found = {
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        for name in imports(file)
        if name == "ray" or name.startswith("ray.")
    }
    assert found == {"launch"}


def test_tensor_mathematics_knows_nothing_of_jobs() -> None:
    """Losses, networks, backbones, methods and images import no room that comes after them."""
    later = tuple(f"ffsd_ray.{room}" for room in ("spec", "train", "launch", "report", "records", "run", "bench"))
    files = [PACKAGE / "losses.py"]
    for room in ("nets", "backbones", "methods", "data"):
        files += (PACKAGE / room).glob("*.py")
    wrong = {(file.name, name) for file in files for name in imports(file) if name.startswith(later)}
    assert wrong == set()


def test_nothing_else_than_the_driver_reaches_the_launch_room() -> None:
    found = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        for name in imports(file)
        if name.startswith("ffsd_ray.launch") and file.relative_to(PACKAGE).parts[0] != "launch"
    }
    assert found == {"run.py"}


def test_two_parts_of_one_name_are_refused() -> None:
    """As two methods' files would be, of which one was copied from the other."""
    assert by_name([("a", int), ("b", str), ("a", int)]) == {"a": int, "b": str}
    with pytest.raises(ValueError, match=r"two parts are named a: .*int.* and .*str"):
        by_name([("a", int), ("a", str)])


#: Dotted keys of a job file in a text; modules (`ffsd_ray.train.build`) and paths are none.
_SECTIONS = "|".join(name for name in JobSpec.model_fields if any(key.startswith(f"{name}.") for key in JOB_KEYS))
_KEYS = re.compile(rf"(?<![\w./-])(?:{_SECTIONS})(?:\.[a-z_][a-z_0-9]*)+(?![\w(/])")


def test_every_key_that_a_text_names_exists() -> None:
    """In messages, descriptions and docstrings: somebody told of a key can put it into a job file."""
    texts = [
        (file.name, node.value)
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = [(file, key) for file, text in texts for key in _KEYS.findall(text)]
    assert len(named) > 30
    assert [(file, key) for file, key in named if key not in JOB_KEYS] == []
