"""The order of the package: which part may import from which, and that one part alone knows Ray."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from pydantic import ValidationError

from ffsd_ray.config.backbone import BackboneSettings
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.keys import JOB_KEYS
from ffsd_ray.registry import by_name

from helpers.paths import PACKAGE
from helpers.specs import digits_spec


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


#: The parts of the package in order: each imports from those of earlier lines alone, inside functions too.
ORDER = (
    "base_settings credentials errors garbage interruption losses memory meta_device quality registry series terminal",
    "backbones command file_schema mistakes storage",
    "backbone_name data nets stamp",
    "card",
    "deployed",
    "classify export methods",
    "plugins",
    "config",
    "records schema",
    "init job_progress",
    "progress_view",
    "train",
    "evaluate group launch report",
    "job_resources remaining",
    "train_job",
    "bench run",
    "api completion",
    "__init__ __main__",
)


def part_of(name: str) -> str:
    """Of a module's full name: the package or module below `ffsd_ray`."""
    return (*name.split("."), "__init__")[1]


def test_parts_import_from_earlier_ones_alone() -> None:
    level = {part: number for number, line in enumerate(ORDER) for part in line.split()}
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found == level.keys()
    wrong = [
        (str(file.relative_to(PACKAGE)), name)
        for file in PACKAGE.rglob("*.py")
        for own in [file.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for name in imports(file)
        if name.startswith("ffsd_ray.") and part_of(name) in level and part_of(name) != own
        if level[part_of(name)] >= level[own]
    ]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    """Not by way of others either."""
    modules = {
        ".".join(("ffsd_ray", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in PACKAGE.rglob("*.py")
    }
    graph = {name: {other for other in imports(file) if other in modules} - {name} for name, file in modules.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names them


def test_ray_is_imported_by_the_launch_package_alone() -> None:
    found = {
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        for name in imports(file)
        if name == "ray" or name.startswith("ray.")
    }
    assert found == {"launch"}


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


def test_settings_change_by_validation() -> None:
    """`Settings.changed` in place of pydantic's copies, which take any value."""
    unchecked = {
        node.attr
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    } & {"model_copy", "model_construct"}
    assert unchecked == set()
    spec = digits_spec({"name": "kd"})
    assert spec.changed(seed=3) == digits_spec({"name": "kd"}, seed=3)
    assert spec.changed().identity() == spec.identity()
    for changes, said in (
        ({"seed": -1}, "greater than or equal to 0"),
        ({"sed": 1}, "Extra inputs"),
        ({"train": spec.train.changed(batch_size=3), "scale": spec.scale.changed(workers=2)}, "2 images a worker"),
        ({"backbone": BackboneSettings(name="vgg-16")}, "too small for this backbone"),
    ):
        with pytest.raises(ValidationError, match=said):
            spec.changed(**changes)


def test_a_copy_of_settings_reads_no_teacher_again(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(b"weights")
    spec = digits_spec({"name": "kd", "teacher_weights": str(file)})
    file.unlink()
    assert spec.changed(seed=1).method == spec.method
    assert spec.configuration().baseline().method.name == "baseline"
