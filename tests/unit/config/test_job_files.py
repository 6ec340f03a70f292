"""Reading job files: what is understood, and what is said about what is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from ffsd_ray import schema
from ffsd_ray.backbones import BACKBONES
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.errors import JobError
from ffsd_ray.methods import METHODS

from helpers.paths import JOB_FILES, JOBS
from helpers.plans import LAUGHS

GOOD = """\
name: good
data: {name: digits}
backbone: {name: resnet20}
method: {name: ffsd, students: 2}
train: {epochs: 4}
"""


class Wrong(NamedTuple):
    """A job file, and what must be said about it: `line:column` (or the option), the key and value, the message."""

    id: str
    text: str
    at: str
    key: str
    fragments: tuple[str, ...]
    overrides: tuple[str, ...] = ()


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


EVERY_METHOD = f"one of {', '.join(METHODS)}."


def having(key: str) -> str:
    """The methods with this key, as the message lists them."""
    found = [name for name, method in METHODS.items() if key in method.Settings.model_fields]
    return f"({', '.join(found)} {'have' if len(found) > 1 else 'has'} it)"


WRONG = [
    # Not YAML, or not a job at all.
    Wrong("syntax", edited("{epochs: 4}", "{epochs: 4"), "6:1", "", ("Not valid YAML", "expected ',' or '}'")),
    Wrong("tab", "name: a\ntrain:\n\tepochs: 3\n", "3:1", "", ("Not valid YAML", "indented with spaces")),
    Wrong("two documents", GOOD + "---\nname: b\n", "6:1", "", ("Not valid YAML", "another document")),
    Wrong("undefined alias", edited("{epochs: 4}", "*fast"), "5:8", "", ("Not valid YAML", "undefined alias")),
    Wrong("control character", edited("good", "go\x07od"), "1:9", "", ("Not valid YAML: a control character",)),
    Wrong("empty", "", "1:1", "", ("The file is empty", "`name: ...`")),
    Wrong("only a comment", "# nothing\n", "1:1", "", ("The file is empty",)),
    Wrong("a list", "- name: a\n", "1:1", "", ('The whole file is [{"name": "a"}]',)),
    Wrong("one word", "quickstart\n", "1:1", "", ('The whole file is "quickstart"',)),
    Wrong("duplicate key", GOOD + "method: {name: dml}\n", "6:1", "method", ("comes twice", "line 4")),
    Wrong("duplicate nested", edited("epochs: 4", "epochs: 4, epochs: 5"), "5:20", "train.epochs", ("comes twice",)),
    Wrong("python tag", edited("epochs: 4", "epochs: !!python/name:os.system 4"), "5:17", "train.epochs", ("Tags",)),
    Wrong("wrong core tag", edited("epochs: 4", "epochs: !!int four"), "5:17", 'train.epochs = "four"', ("!!int",)),
    Wrong("no text", edited("good", r'"\ud800"'), "1:7", r'name = "\ud800"', ("Cannot be read as !!str",)),
    Wrong("no text as a key", GOOD + r'"\ud800": 1', "6:1", "", ("A key should be one word",)),
    Wrong("endless number", edited("epochs: 4", f"epochs: {'9' * 5000}"), "5:17", "train.epochs = ", ("!!int",)),
    Wrong("list as a key", edited("train:", "[train]:"), "5:1", "", ("A key should be one word",)),
    Wrong("alias bomb", GOOD + LAUGHS, "6:35", "e[3]", ("more than 50,000 values",)),
    Wrong("bottomless", "a: " + "[" * 5000, "1:103", "", ("nested more than 100 deep",)),
    Wrong("recursive alias", GOOD + "seed: &a [*a]\n", "6:7", "seed[0][0]", ("nested more than 100 deep",)),
    # Keys and kinds that do not exist.
    Wrong(
        "unknown key",
        edited("students: 2", "studnets: 3"),
        "4:22",
        "method.studnets = 3",
        ("Unknown key. Did you mean `students`?", "Keys here: name, students, temperature"),
    ),
    Wrong("at the top", GOOD + "epochs: 3\n", "6:1", "epochs = 3", ("Did you mean `train.epochs`?",)),
    Wrong("section misspelt", edited("train:", "trian:"), "5:1", "trian", ("Did you mean `train`?",)),
    Wrong("wrong section", edited("students: 2", "lr: 1"), "4:22", "method.lr = 1", ("Did you mean `train.lr`?",)),
    Wrong("merge key", edited("{epochs: 4}", "{<<: {epochs: 4}}"), "5:9", "train.<<", ("Unknown key",)),
    Wrong(
        "another kind's key",
        edited("name: ffsd", "name: dml, lambda_div: 1e-5"),
        "4:21",
        "method.lambda_div = 1e-05",
        (f"dml has no such key {having('lambda_div')}",),
    ),
    Wrong(
        "unknown method",
        edited("name: ffsd", "name: fsd"),
        "4:16",
        'method.name = "fsd"',
        (EVERY_METHOD, "Did you mean `ffsd`?"),
    ),
    Wrong("unknown data", edited("digits", "cifar_10"), "2:14", 'data.name = "cifar_10"', ("`cifar10`",)),
    Wrong("unknown backbone", edited("resnet20", "resnet23"), "3:18", 'backbone.name = "resnet23"', ("resnet20",)),
    Wrong("name is a list", edited("digits", "[digits]"), "2:14", 'data.name = ["digits"]', ("one of cifar10",)),
    Wrong("no kind", edited("name: ffsd, ", ""), "4:1", "method.name", ("Missing", EVERY_METHOD)),
    Wrong("a number", edited("{name: ffsd, students: 2}", "3"), "4:9", "method = 3", ("Should be a section",)),
    Wrong("no name", edited("name: good", "seed: 1"), "1:1", "name", ("Missing", "run's folder")),
    Wrong("no backbone", edited("backbone: {name: resnet20}", "seed: 1"), "1:1", "backbone", ("Missing. The network",)),
    Wrong("no root", edited("digits", "image_folder"), "2:1", "data.root", ("Missing. Folder with",)),
    Wrong(
        "cosine with milestones",
        edited("{epochs: 4}", "{epochs: 4, schedule: cosine, milestones: [2]}"),
        "5:50",
        "train.milestones",
        ("A cosine has none",),
    ),
    Wrong(
        "a rate of SGD's for AdamW",
        edited("{epochs: 4}", "{epochs: 4, optimiser: adamw}"),
        "5:1",
        "train.lr",
        ("0.05 or less",),
    ),
    # Values.
    Wrong("empty section", edited("{epochs: 4}", ""), "5:7", "train = null", ("Should be a section",)),
    Wrong("section is a list", edited("{epochs: 4}", "[epochs, 4]"), "5:8", "train = [", ("Should be a section",)),
    Wrong("too small", edited("students: 2", "students: 1"), "4:32", "method.students = 1", ("Should be 2 or more.",)),
    Wrong("fraction", edited("epochs: 4", "epochs: 4.5"), "5:17", "train.epochs = 4.5", ("a whole number",)),
    Wrong("text", edited("epochs: 4", "lr: fast"), "5:13", 'train.lr = "fast"', ("Should be a number.",)),
    Wrong("quoted number", edited("epochs: 4", "lr: '0.1'"), "5:13", 'train.lr = "0.1"', ("Should be a number.",)),
    Wrong("infinite", edited("epochs: 4", "lr: .inf"), "5:13", "train.lr = Infinity", ("a finite number",)),
    Wrong("on", edited("epochs: 4", "nesterov: on"), "5:19", 'train.nesterov = "on"', ("Should be true or false.",)),
    Wrong("true", edited("epochs: 4", "epochs: true"), "5:17", "train.epochs = true", ("a whole number",)),
    Wrong("exclusive bound", edited("epochs: 4", "momentum: 1"), "5:19", "train.momentum = 1", ("less than 1.",)),
    Wrong("literal", edited("epochs: 4", "precision: bf-16"), "5:20", 'train.precision = "bf-16"', ("`bf16`",)),
    Wrong("not a list", edited("epochs: 4", "milestones: 2"), "5:21", "train.milestones = 2", ("a list",)),
    Wrong("item", edited("epochs: 4", "milestones: [1, x]"), "5:25", 'train.milestones[1] = "x"', ("whole number",)),
    Wrong("number as text", edited("good", "2024"), "1:7", "name = 2024", ("Should be text",)),
    Wrong("job name", edited("good", "my job"), "1:7", 'name = "my job"', ("Not allowed.", "letters, digits")),
    Wrong("negative seed", GOOD + "seed: -1\n", "6:7", "seed = -1", ("Should be 0 or more.",)),
    Wrong("one of the seeds", GOOD + "seed: [0, 1.5]\n", "6:11", "seed = 1.5", ("a whole number",)),
    Wrong("no seeds", GOOD + "seed: []\n", "6:7", "seed = []", ("Should have 1 item or more.",)),
    # Several keys together.
    Wrong(
        "milestones outside",
        edited("epochs: 4", "epochs: 4, milestones: [2, 4]"),
        "5:32",
        "train.milestones = [2, 4]",
        ("inside the 4 epochs",),
    ),
    Wrong("ascending", edited("epochs: 4", "milestones: [9, 3]"), "5:21", "train.milestones = [9, 3]", ("ascending",)),
    Wrong("padding", edited("digits", "digits, crop_padding: 16"), "2:1", "data = ", ("smaller than the images",)),
    Wrong("workers", GOOD + "scale: {workers: 65}\n", "5:1", "train.batch_size = 128 (default)", ("130 for 65",)),
    Wrong("GPU share", GOOD + "scale: {gpus_per_worker: 1.5}\n", "6:26", "scale.gpus_per_worker = 1.5", ("whole",)),
    Wrong("sync on CPU", edited("epochs: 4", "batch_norm: sync"), "5:21", 'train.batch_norm = "sync"', ("GPUs",)),
    # The search space.
    Wrong(
        "grid item",
        GOOD + "search:\n  grid:\n    method.students: [2, 1]\n",
        "8:26",
        "method.students = 1",
        ("Should be 2 or more. (in 1 of 2 trials)",),
    ),
    Wrong(
        "grid key",
        GOOD + "search: {grid: {method.studnets: [2, 3]}}\n",
        "6:17",
        "method.studnets = 2",
        ("Did you mean `students`?", "(in all 2 trials)"),
    ),
    Wrong(
        "grid section",
        GOOD + "search: {grid: {methd.students: [2, 3]}}\n",
        "6:17",
        "search.grid.methd.students",
        ("Did you mean `method.students`?", "data, backbone, method, train, scale, seed"),
    ),
    Wrong("bare grid key", GOOD + "search: {grid: {lr: [1]}}\n", "6:17", "search.grid.lr", ("`train.lr`",)),
    Wrong("below the seed", GOOD + "search: {grid: {seed.x: [1]}}\n", "6:17", "search.grid.seed.x", ("Unknown",)),
    Wrong("grid is a list", GOOD + "search: {grid: [1]}\n", "6:16", "search.grid = [1]", ("Should be a section",)),
    Wrong("no list", GOOD + "search: {grid: {train.lr: 1}}\n", "6:27", "search.grid.train.lr = 1", ("a list",)),
    Wrong("no values", GOOD + "search: {grid: {train.lr: []}}\n", "6:27", "search.grid.train.lr = []", ("1 item",)),
    Wrong("search key", GOOD + "search: {gird: {}}\n", "6:10", "search.gird", ("Did you mean `grid`?",)),
    Wrong(
        "students of a baseline",
        GOOD + "search: {grid: {method: [{name: baseline}, {name: dml}], method.students: [2, 3]}}\n",
        "6:58",
        "method.students = 2",
        (f"baseline has no such key {having('students')}", "(in 2 of 4 trials)"),
    ),
    Wrong("grid of numbers", GOOD + "search: {grid: {method: [3]}}\n", "6:26", "method = 3", ("Should be a section",)),
    Wrong(
        "grid of sections",
        GOOD + "search:\n  grid:\n    method:\n      - {name: dml, students: 0}\n",
        "9:31",
        "method.students = 0",
        ("Should be 2 or more.",),
    ),
    Wrong("also", GOOD + "search: {also: {seed: 1}}\n", "6:10", "search.also = {", ("Should be a list",)),
    Wrong("also item", GOOD + "search: {also: [baseline]}\n", "6:17", "search.also[0]", ("Should be a section",)),
    Wrong(
        "also key",
        GOOD + "search: {also: [{epochs: 3}]}\n",
        "6:18",
        "search.also[0].epochs = 3",
        ("Did you mean `train.epochs`?",),
    ),
    Wrong(
        "also value",
        GOOD + "search:\n  also:\n    - method: {name: dml, temperature: 0}\n",
        "8:40",
        "method.temperature = 0",
        ("Should be more than 0. (in 1 of 2 trials)",),
    ),
    Wrong("also without seeds", GOOD + "search: {also: [{seed: []}]}\n", "6:24", "search.also[0].seed", ("1 item",)),
    Wrong(
        "too many trials",
        GOOD + f"seed: {list(range(100))}\nsearch: {{grid: {{train.lr: {[1] * 101}}}}}\n",
        "7:1",
        "search",
        ("10,100 trials; should be 10,000 or fewer",),
    ),
    Wrong(
        "missing only outside the grid",
        "name: a\ndata: {name: digits}\nmethod: {name: dml}\nsearch:\n  grid: {backbone: [{name: resnet20}]}\n"
        "  also:\n    - {seed: 1}\n",
        "7:7",
        "backbone",
        ("Missing. The network.",),
    ),
    Wrong("rows", GOOD + "report: {rows: method.student}\n", "6:16", "report.rows = ", ("`method.students`",)),
    Wrong("rows item", GOOD + "report: {rows: [seed, lr]}\n", "6:23", "report.rows = ", ("`train.lr`",)),
    # The command line.
    Wrong("set value", GOOD, "--set train.epochs=x", 'train.epochs = "x"', ("whole number",), ("train.epochs=x",)),
    Wrong("set key", GOOD, "--set train.epoch=2", "train.epoch = 2", ("`epochs`",), ("train.epoch=2",)),
    Wrong("set top", GOOD, "--set epochs=2", "epochs = 2", ("`train.epochs`",), ("epochs=2",)),
    Wrong("set nothing", GOOD, "--set train.epochs", "", ("KEY=VALUE",), ("train.epochs",)),
    Wrong("set no key", GOOD, "--set train.=3", "", ("KEY=VALUE",), ("train.=3",)),
    Wrong("set no YAML", GOOD, "--set seed=[1", "", ("Not valid YAML",), ("seed=[1",)),
    Wrong("set kind", GOOD, "--set method.name=fsd", 'method.name = "fsd"', ("`ffsd`",), ("method.name=fsd",)),
    Wrong("set in a value", GOOD, "--set name.x=1", "name.x", ("not a section",), ("name.x=1",)),
    Wrong(
        "set section",
        GOOD,
        "--set method={name: dml, students: 1}",
        "method.students = 1",
        ("Should be 2 or more.",),
        ("method={name: dml, students: 1}",),
    ),
    Wrong(
        "set an axis",
        GOOD + "search: {grid: {train.lr: [1, 2]}}\n",
        "--set train.lr=3",
        "train.lr",
        ("search.grid sets `train.lr` in every trial; change search.grid.train.lr.",),
        ("train.lr=3",),
    ),
    Wrong(
        "set below an axis",
        GOOD + "search: {grid: {method: [{name: dml}]}}\n",
        "--set method.students=3",
        "method.students",
        ("search.grid sets `method`",),
        ("method.students=3",),
    ),
    Wrong(
        "set grid",
        GOOD,
        "--set search.grid.method.students=[1]",
        "method.students = 1",
        ("Should be 2 or more.",),
        ("search.grid.method.students=[1]",),
    ),
]


def load(tmp_path: Path, text: str, *overrides: str) -> Plan:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return load_job(path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert not re.search(
        r"https?:|type=|[Ii]nput|pydantic|Traceback|constrained|dictionary|valid ",
        message.replace("Not valid YAML", ""),
    )
    return message


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.id for wrong in WRONG])
def test_wrong_job_file(wrong: Wrong, tmp_path: Path) -> None:
    message = refusal(tmp_path, wrong.text, *wrong.overrides)
    print(f"\n--- {wrong.id}\n{message}")
    place = wrong.at if wrong.at.startswith("--set") else f"job.yaml:{wrong.at}"
    [paragraph] = [part for part in message.split("\n\n") if part.startswith((f"{place}  {wrong.key}", f"{place}\n"))]
    for fragment in wrong.fragments:
        assert fragment in paragraph


def test_wrong_in_one_way_is_one_problem(tmp_path: Path) -> None:
    """Nothing is said twice, or said of what follows from something said already."""
    for wrong in WRONG:
        assert refusal(tmp_path, wrong.text, *wrong.overrides).endswith("\n1 problem"), wrong.id


def test_every_problem_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
name: fig6
data: {name: cifar1000}
backbone: [resnet20]
method: {name: ffsd, studnets: 3, alpha: -1}
epochs: 3
train: {epochs: 0, epochs: 1}
search:
  grid: {method.students: [2, 1], seed: [0, 1, 2]}
  also: [{method: {name: baseline}, seed: -2}]
"""
    message = refusal(tmp_path, text, "train.lr=-1")
    print(message)
    heads = re.findall(r"^(?:job.yaml:|--set ).*", message, re.MULTILINE)
    assert [head.split("  ")[0] for head in heads] == [
        "--set train.lr=-1",
        "job.yaml:2:14",
        "job.yaml:3:11",
        "job.yaml:4:22",
        "job.yaml:4:42",
        "job.yaml:5:1",
        "job.yaml:6:17",
        "job.yaml:6:20",
        "job.yaml:8:31",
        "job.yaml:9:43",
    ]
    assert message.endswith("\n\n10 problems")
    assert "(in 6 of 7 trials)" in message
    assert "(in all 7 trials)" in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, expected in [
        (tmp_path / "absent.yaml", r"absent\.yaml\n  Should be a job file that can be read: no such file"),
        (tmp_path, r"is a directory"),
        (Path("/dev/zero"), r"Should be a job file, of 10 MB at most"),
    ]:
        with pytest.raises(JobError, match=expected):
            load_job(path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: a\n# größer\n".encode("latin-1"))
    with pytest.raises(JobError, match=r"latin\.yaml:2:5\n  Should be UTF-8 text; there is a byte 0xf6 here"):
        load_job(latin)


def test_yaml_as_people_write_it(tmp_path: Path) -> None:
    """Numbers of YAML 1.2, whole numbers for fractions, anchors, text that YAML 1.1 takes for something else."""
    plan = load(
        tmp_path,
        """\
\ufeffname: natural
data: {name: cifar10, root: on, flip: True}
backbone: &net {name: resnet20}
method: {name: ffsd, lambda_div: 1e-5, lambda_fea: 10, lambda_self: 1E+3, alpha: .5, warmup_epochs: ~}
train:
  epochs: 0x10
  lr: 1
  milestones:
    - 4
    - 010
scale: {gpus_per_worker: 1}
records: {storage: 2024-01-01}
search:
  also: [{backbone: *net, train.lr: 2}]
report: {rows: train.lr}
""",
    )
    trial = plan.trials[0]
    assert trial.method.model_dump() == {
        "name": "ffsd",
        "students": 2,
        "temperature": 2.0,
        "formulation": "published",
        "lambda_div": 1e-5,
        "lambda_fea": 10.0,
        "lambda_self": 1000.0,
        "leader_kl": 1.0,
        "leader_teacher": "fusion",
        "mutual_ramp_epochs": 0,
        "views": "shared",
        "alpha": 0.5,
        "warmup_epochs": None,
        "diversity": "attention",
        "self_distillation": "both",
        "fusion": True,
    }
    assert isinstance(trial.train.lr, float)
    assert (trial.train.epochs, trial.train.milestones) == (16, [4, 10])
    assert trial.data.model_dump()["root"] == "on"
    assert plan.job.records.storage == "2024-01-01"
    assert plan.job.report.rows == ["train.lr"]
    assert len(plan.trials) == 2


def test_editors_are_led_to_the_schema() -> None:
    """Every job file names the committed one and keeps to it. Write it anew: ffsd schema > jobs/ffsd.schema.json"""
    committed = JOBS / schema.FILE
    content = json.loads(committed.read_text())
    assert content == json.loads(schema.schema_text()), "ffsd schema > jobs/ffsd.schema.json"
    validator = jsonschema.Draft202012Validator(content)
    for file in JOB_FILES:
        lead, _, target = file.read_text().partition("\n")[0].partition("=")
        assert lead == schema.EDITORS_LINE.partition("=")[0], file
        assert (file.parent / target).resolve() == committed, file
        tree = parse(file.read_text(), lambda line, column: Place("job", line, column), Problems())
        assert tree is not None
        validator.validate(tree.plain())


@pytest.mark.thorough
def test_schema_agrees_with_the_loader(tmp_path: Path) -> None:
    printed = subprocess.run([sys.executable, "-m", "ffsd_ray.schema"], check=True, capture_output=True, text=True)
    content: dict[str, Any] = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(content)
    validator = jsonschema.Draft202012Validator(content)
    job: dict[str, Any] = {
        "name": "a",
        "data": {"name": "digits", "image_size": 16},
        "backbone": {"name": "resnet20"},
        "method": {"name": "ffsd", "lambda_div": 1},
        "seed": 3,
        "search": {"grid": {"method.students": [2, 3], "method": [{"name": "dml"}]}, "also": [{"seed": [1]}]},
        "report": {"rows": "method.students"},
    }
    validator.validate(job)
    validator.validate(job | {"seed": [1, 2], "report": {"rows": ["seed"]}})
    validator.validate(job | {"backbone": {"name": "torchvision:resnet18"}})
    wrongs: list[dict[str, Any]] = [
        {"epochs": 3},
        {"backbone": {"name": "resnet21"}},
        {"method": {"name": "fsd"}},
        {"method": {"name": "dml", "lambda_div": 1}},
        {"method": {"name": "dml", "students": 1}},
        {"train": {"epochs": 1.5}},
        {"search": {"grid": {"method.students": 3}}},
        {"seed": "one"},
    ]
    for wrong in wrongs:
        assert not validator.is_valid(job | wrong), wrong
    assert content["$defs"]["BackboneSettings"]["properties"]["name"]["anyOf"][0]["enum"] == list(BACKBONES)
    epochs = content["$defs"]["TrainSettings"]["properties"]["epochs"]
    assert (epochs["default"], epochs["minimum"], bool(epochs["description"])) == (300, 1, True)
