"""Pictures of where networks look, from real short runs."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ffsd_ray.errors import JobError, RecordsError, UserError
from ffsd_ray.losses import attention
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.report.filters import where
from ffsd_ray.report.map_panels import chosen, heat, panels
from ffsd_ray.report.maps import draw, main
from ffsd_ray.report.plots.style import check_picture

from helpers.specs import digits_spec
from helpers.workers import train_with

SPECS = [
    digits_spec({"name": "baseline"}, epochs=1),
    digits_spec({"name": "dml"}, epochs=1),
    digits_spec({"name": "ffsd"}, epochs=1),
]
#: Planned, and not begun.
PENDING = digits_spec({"name": "ffsd", "students": 3}, epochs=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    folder = tmp_path_factory.mktemp("maps")
    for spec in SPECS:
        train_with(spec, folder / "trials" / spec.identity())
    run = RunRecords(Store(str(folder)))
    run.begin("", {"name": "maps"}, [], {spec.identity(): spec.model_dump() for spec in [*SPECS, PENDING]})
    return run


def test_chosen_images() -> None:
    labels = torch.tensor([2, 0, 1, 1, 3, 2, 0, 3])
    assert chosen(labels, 4) == [1, 2, 0, 4]
    assert chosen(labels, 2) == [1, 0], "classes 0 and 2"
    assert chosen(labels, 6) == [1, 2, 0, 4, 6, 3], "then the second of a class"
    assert len(chosen(labels, 20)) == 8


def test_heat_is_the_attention_scaled_to_each_map() -> None:
    maps = torch.randn(3, 5, 4, 4)
    maps[2] = 0
    found = heat(maps, 4)
    looks = attention(maps).view(3, 4, 4)
    assert torch.allclose(found[0], (looks[0] - looks[0].min()) / (looks[0].max() - looks[0].min()), atol=1e-6)
    assert found[:2].amin(dim=(1, 2)).tolist() == [0, 0]
    assert found[:2].amax(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert not found[2].any(), "a map without contrast stays dark"
    assert heat(maps, 20).shape == (3, 20, 20)


@pytest.mark.thorough
def test_columns_are_the_networks_of_the_checkpoints(run: RunRecords) -> None:
    shown = panels(run, [], [], ["mid", "top"], 3)
    columns = {label: [(column.member, column.level) for column in block] for label, block in shown.trials.items()}
    levels = ("mid", "top")
    assert columns == {
        "baseline, seed 0": [("student", level) for level in levels],
        "dml n=2, seed 0": [(name, level) for name in ("student1", "student2") for level in levels],
        "ffsd n=2, seed 0": [(name, level) for name in ("student1", "student2", "leader") for level in levels],
    }
    assert shown.classes == ("0", "3", "6")
    for said in ("digits", "resnet8", "epoch 1", "seed 0", "No checkpoint yet: ffsd n=3, seed 0"):
        assert said in shown.caption
    figure = draw(shown)
    assert len(figure.axes) == 3 * (1 + 2 + 4 + 6)
    texts = {text.get_text() for text in figure.texts}
    assert {"image", "leader\nmid", "student\ntop", "baseline, seed 0"} <= texts


def test_the_leader_shown_is_the_leader_trained(run: RunRecords) -> None:
    """The heat map of a column, from the exported weights instead of the checkpoint."""
    from ffsd_ray import data
    from ffsd_ray.data.batches import normalise
    from ffsd_ray.deployed import load_model

    spec = SPECS[2]
    shown = panels(run, ["method.name=ffsd", "method.students=2"], ["leader"], ["top"], 4)
    [[column]] = shown.trials.values()
    leader = load_model(f"{run.store.location}/trials/{spec.identity()}/model_last.safetensors")
    dataset = data.load(spec.data)
    with torch.inference_mode():
        maps = leader.backbone(normalise(shown.images, dataset.mean, dataset.std)).maps
    assert torch.allclose(column.heat, heat(maps[-1], column.heat.shape[-1]), atol=1e-4)


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_command_writes_a_picture(run: RunRecords, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"picture{ending}"
    options = ["--images", "2", "--where", "method.name=ffsd", "--members", "student1", "leader", "--level", "both"]
    assert main([run.store.location, "--out", str(out), *options]) == 0
    content = out.read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[ending])
    if ending == ".png":
        width, height = Image.open(out).size
        assert width > 200 * 5
        assert height > 200 * 2


def test_where() -> None:
    specs = [*SPECS, PENDING]
    assert where(specs, []) == specs
    assert where(specs, ["method.students=2"]) == SPECS[1:]
    assert where(specs, ["method.name=ffsd", "method.lambda_div=1e-5", "method.students=3"]) == [PENDING]
    with pytest.raises(JobError, match=r"--where students=2: not a key of trials\. Did you mean `method\.students`\?"):
        where(specs, ["students=2"])
    with pytest.raises(JobError, match="should be KEY=VALUE"):
        where(specs, ["method.name"])
    with pytest.raises(RecordsError, match=r'no such trial; method\.name is "baseline", "dml", "ffsd"$'):
        where(specs, ["method.name=one"])


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("train.nesterov=true", True),
        ("train.nesterov=1", False),
        ("scale.workers=1", True),
        ("scale.workers=true", False),
        ("scale.workers=1.0", True),
        ("seed=false", False),
        ("seed=0", True),
        ("train.momentum=0.9", True),
        ("train.milestones=null", True),
        ("data.image_size=16", True),
        ('data.image_size="16"', False),
    ],
)
def test_values_are_compared_as_yaml(condition: str, met: bool) -> None:
    """True is not 1, and text is no number."""
    specs = [digits_spec({"name": "baseline"}, data={"image_size": 16})]
    if met:
        assert where(specs, [condition]) == specs
    else:
        with pytest.raises(RecordsError, match="no such trial"):
            where(specs, [condition])


def test_a_condition_on_a_section_or_a_list() -> None:
    alone = digits_spec({"name": "baseline"})
    elastic = alone.changed(scale=alone.scale.changed(workers={"min": 1, "max": 2}))
    stopped = digits_spec({"name": "baseline"}, epochs=4, milestones=[1, 3])
    assert where([elastic, stopped], ["scale.workers={max: 2, min: 1}"]) == [elastic]
    assert where([elastic, stopped], ["train.milestones=[1, 3]"]) == [stopped]
    with pytest.raises(RecordsError, match=r'scale\.workers is \{"min": 1, "max": 2\}, 1$'):
        where([elastic, stopped], ["scale.workers=3"])


def test_every_condition_and_member_counts(run: RunRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where an option is given twice."""
    both = ["--where", "method=ffsd", "--where", "method.students=3"]
    assert main([run.store.location, "--out", str(tmp_path / "x.png"), *both]) == 2
    assert "no checkpoint of these trials yet" in capsys.readouterr().err
    turned = [*both[2:], *both[:2]]
    assert main([*turned, run.store.location, "--out", str(tmp_path / "x.png")]) == 2
    assert "no checkpoint of these trials yet" in capsys.readouterr().err
    names = ["--members", "teacher", "--members", "nobody"]
    assert main([run.store.location, "--out", str(tmp_path / "x.png"), *names]) == 2
    assert "--members teacher nobody" in capsys.readouterr().err


def test_what_cannot_be_drawn(run: RunRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = run.store.location
    for options, said in (
        (["--out", "picture.jpg"], "should end in .png, .pdf, .svg"),
        (["--out", str(tmp_path / "none" / "x.png")], "there is no folder"),
        (["--out", str(tmp_path / "x.png"), "--members", "teacher"], "these trials have student, student1, student2"),
        (["--out", str(tmp_path / "x.png"), "--where", "method.students=3"], "no checkpoint of these trials yet"),
    ):
        assert main([place, *options]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_trials_on_different_images(run: RunRecords, tmp_path: Path) -> None:
    other = digits_spec({"name": "baseline"}, epochs=1, data={"image_size": 16})
    folder = tmp_path / "trials"
    train_with(other, folder / other.identity())
    train_with(SPECS[0], folder / SPECS[0].identity())
    mixed = RunRecords(Store(str(tmp_path)))
    mixed.begin("", {"name": "mixed"}, [], {spec.identity(): spec.model_dump() for spec in (SPECS[0], other)})
    with pytest.raises(RecordsError, match="different data"):
        panels(mixed, [], [], ["top"], 2)
    assert len(panels(mixed, ["data.image_size=16"], [], ["top"], 2).trials) == 1


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r'pip install "ffsd-ray\[plot\]"'):
        check_picture(tmp_path / "x.png")
