"""From a job to its trials: the grid, `also`, seeds, overrides, identities, and what tells trials apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from ffsd_ray.backbones import BACKBONES
from ffsd_ray.config.inspection.dry_run import describe, training_flops
from ffsd_ray.config.inspection.flops import FlopCounter, meta_group
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.data import load as read_images
from ffsd_ray.errors import JobError
from ffsd_ray.meta_device import meta_device
from ffsd_ray.methods import METHODS
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.methods.dml import DmlSettings
from ffsd_ray.methods.ffsd import FfsdSettings

from helpers.flops import flops_per_image
from helpers.plans import LoadJob, values
from helpers.specs import digits_spec

BASE: dict[str, Any] = {
    "name": "job",
    "data": {"name": "digits"},
    "backbone": {"name": "resnet20"},
    "method": {"name": "ffsd", "students": 4, "temperature": 3, "lambda_div": 1.0},
    "train": {"epochs": 4},
}


@pytest.fixture
def load(tmp_path: Path) -> LoadJob:
    return LoadJob(tmp_path, BASE)


def test_without_a_search_a_trial_a_seed(load: LoadJob) -> None:
    assert values(load(), "seed") == [(0,)]
    assert values(load(seed=5), "seed") == [(5,)]
    assert values(load(seed=[3, 1, 2]), "seed") == [(3,), (1,), (2,)]


def test_grid_combines_every_axis_with_every_seed(load: LoadJob) -> None:
    grid = {"seed": [0, 1], "method.students": [2, 3], "train.lr": [0.1, 1]}
    found = values(load(search={"grid": grid}), "method.students", "train.lr", "seed")
    assert found == [(n, lr, seed) for n in (2, 3) for lr in (0.1, 1.0) for seed in (0, 1)]


def test_seeds_of_the_grid_take_the_place_of_the_jobs(load: LoadJob) -> None:
    assert values(load(seed=[7, 8], search={"grid": {"seed": [1, 2, 3]}}), "seed") == [(1,), (2,), (3,)]
    assert len(load(seed=[7, 8], search={"grid": {"train.lr": [1, 2, 3]}}).trials) == 6


def test_whole_sections_go_in_before_their_keys(load: LoadJob) -> None:
    grid = {"method.students": [2, 3], "method": [{"name": "dml"}, {"name": "ffsd", "students": 9}]}
    found = values(load(search={"grid": grid}), "method.name", "method.students", "method.temperature")
    assert found == [("dml", 2, 2.0), ("dml", 3, 2.0), ("ffsd", 2, 2.0), ("ffsd", 3, 2.0)]


def test_sections_may_come_from_the_grid_alone(load: LoadJob) -> None:
    grid = {
        "method": [{"name": "baseline"}, {"name": "dml"}, {"name": "ffsd", "students": 3}],
        "backbone": [{"name": "resnet20"}, {"name": "resnet32"}],
    }
    plan = load(method=None, backbone=None, search={"grid": grid})
    assert len(plan.trials) == 6
    assert plan.job.method is None


def test_the_grid_may_complete_a_section(load: LoadJob) -> None:
    """The job's own section is wrong without the grid's keys, the trials' are not."""
    plan = load(
        data={"name": "image_folder"},
        train={"milestones": [400]},
        search={"grid": {"data.root": ["a", "b"], "train.epochs": [500, 600]}},
    )
    assert values(plan, "data.root", "train.epochs") == [("a", 500), ("a", 600), ("b", 500), ("b", 600)]
    assert plan.job.train.epochs == 500


def test_kinds_as_an_axis_keep_the_keys_both_have(load: LoadJob) -> None:
    plan = load(search={"grid": {"method.name": ["baseline", "dml", "ffsd"]}})
    found = values(plan, "method.name", "method.students", "method.temperature", "method.lambda_div")
    assert found == [("baseline", None, None, None), ("dml", 4, 3.0, None), ("ffsd", 4, 3.0, 1.0)]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"method": {"students": 2}}, ("ffsd", 2, 3.0, 1.0)),
        ({"method.students": 2}, ("ffsd", 2, 3.0, 1.0)),
        ({"method": {"name": "ffsd", "students": 2}}, ("ffsd", 2, 3.0, 1.0)),
        ({"method": {"name": "dml"}}, ("dml", 2, 2.0, None)),
        ({"method": {"name": "baseline"}}, ("baseline", None, None, None)),
        ({"method.students": 5, "method": {"name": "dml", "students": 3}}, ("dml", 5, 2.0, None)),
        ({"method.name": "dml"}, ("dml", 4, 3.0, None)),
    ],
)
def test_also_merges_and_replaces(load: LoadJob, entry: dict[str, Any], expected: tuple[Any, ...]) -> None:
    plan = load(search={"also": [entry]})
    keys = ("method.name", "method.students", "method.temperature", "method.lambda_div")
    assert values(plan, *keys) == [("ffsd", 4, 3.0, 1.0), expected]


def test_also_starts_from_the_job_and_not_from_the_grid(load: LoadJob) -> None:
    search = {"grid": {"train.lr": [1, 2]}, "also": [{"method": {"name": "baseline"}}]}
    found = values(load(search=search), "method.name", "train.lr")
    assert found == [("ffsd", 1.0), ("ffsd", 2.0), ("baseline", 0.1)]


def test_seeds_of_also(load: LoadJob) -> None:
    def seeds(search: dict[str, Any], **sections: Any) -> list[int]:
        plan = load(search=search, **sections)
        return [trial.seed for trial in plan.trials if trial.method.name == "baseline"]

    baseline = {"method": {"name": "baseline"}}
    assert seeds({"also": [baseline]}, seed=[4, 5]) == [4, 5]
    assert seeds({"also": [baseline], "grid": {"seed": [1, 2]}}, seed=[4, 5]) == [1, 2]
    assert seeds({"also": [baseline | {"seed": 9}]}, seed=[4, 5]) == [9]
    assert seeds({"also": [baseline | {"seed": [9, 8]}]}) == [9, 8]


def test_the_same_trial_comes_once_and_where_it_came_first(load: LoadJob) -> None:
    search = {"grid": {"train.lr": [1, 0.1, 1.0]}, "also": [{}, {"train.lr": 2}, {"scale.trials_at_once": 1}]}
    assert values(load(search=search), "train.lr") == [(1.0,), (0.1,), (2.0,)]


def test_overrides(load: LoadJob) -> None:
    plan = load("train.epochs=2", "seed=[1, 2]", "records={storage: elsewhere}", "scale.workers=2")
    assert values(plan, "train.epochs", "seed", "scale.workers") == [(2, 1, 2), (2, 2, 2)]
    assert plan.job.records.storage == "elsewhere"
    assert plan.overrides[0] == "train.epochs=2"
    assert yaml.safe_load(plan.text) == BASE
    # in their order, the last word counts
    assert values(load("train.lr=1", "train={lr: 2}"), "train.lr", "train.epochs") == [(2.0, 300)]
    # nothing after = is null
    assert values(load("train.milestones=[1]", "train.milestones="), "train.milestones") == [(None,)]


def test_overriding_a_kind_keeps_the_keys_both_have(load: LoadJob) -> None:
    keys = ("method.name", "method.students", "method.temperature")
    assert values(load("method.name=dml"), *keys) == [("dml", 4, 3.0)]
    assert values(load("method.name=baseline"), *keys) == [("baseline", None, None)]
    assert values(load("method={name: dml}"), *keys) == [("dml", 2, 2.0)]
    assert values(load("method.name=baseline", "method.name=ffsd", "method.students=3"), *keys) == [("ffsd", 3, 2.0)]


def test_overriding_the_search(load: LoadJob) -> None:
    search = {"grid": {"method.students": [2, 3, 4], "seed": [0, 1]}}
    keys = ("method.students", "seed")
    assert values(load("search.grid.seed=[5]", search=search), *keys) == [(2, 5), (3, 5), (4, 5)]
    assert values(load("search.grid.method.students=[2]", search=search), *keys) == [(2, 0), (2, 1)]
    assert values(load("search={}", "seed=3", search=search), *keys) == [(4, 3)]
    assert values(load("search.also=[{seed: 1}]"), *keys) == [(4, 0), (4, 1)]


TRIAL = {key: value for key, value in BASE.items() if key != "name"}


def identity(**changes: dict[str, Any]) -> str:
    return TrialSpec.model_validate(TRIAL | changes).identity()


def test_identity_is_what_is_computed() -> None:
    same = [
        {},
        {"method": dict(reversed(BASE["method"].items()))},
        {"method": BASE["method"] | {"temperature": 3.0, "formulation": "published"}},
        {"data": {"name": "digits", "cache": "/elsewhere"}},
        {"train": {"epochs": 4, "checkpoint_every": 2, "eval_batch_size": 7, "lr": 0.1}},
        {"scale": {"trials_at_once": 3, "cpus_per_worker": 2, "threads": 1}},
    ]
    other = [
        {"method": BASE["method"] | {"temperature": 2}},
        {"method": {"name": "dml"}},
        {"data": {"name": "digits", "flip": True}},
        {"data": {"name": "cifar10"}},
        {"backbone": {"name": "resnet32"}},
        {"train": {"epochs": 5}},
        {"scale": {"workers": 2}},
        {"scale": {"threads": 2}},
        {"scale": {"gpus_per_worker": 0.5}},
        {"seed": 1},
    ]
    assert len({identity(**changes) for changes in same}) == 1
    assert len({identity(**changes) for changes in [{}, *other]}) == 1 + len(other)
    on_gpus = [{"scale": {"gpus_per_worker": share}} for share in (0.5, 1, 2)]
    assert len({identity(**changes) for changes in on_gpus}) == 1


def test_what_varies(load: LoadJob) -> None:
    assert varying(load().trials) == []
    grid = {"seed": [0, 1], "method.students": [2, 3]}
    also = [{"method": {"name": "baseline"}}]
    plan = load(search={"grid": grid, "also": also}, method={"name": "ffsd"})
    # the baseline has no students, temperature and λs: `method.name` says so
    assert varying(plan.trials) == ["method.name", "method.students", "seed"]
    assert value_at(plan.trials[-1], "method.students") is None
    assert value_at(plan.trials[0], "method.students") == 2
    assert value_at(plan.trials[0], "backbone") == plan.trials[0].backbone


def test_defaults_of_another_kind_do_not_vary(load: LoadJob) -> None:
    methods = [{"name": "dml"}, {"name": "ffsd", "students": 3}]
    data = [{"name": "digits"}, {"name": "cifar10"}]  # crop_padding 2 and 4, flip false and true by default
    plan = load(method=None, data=None, search={"grid": {"method": methods, "data": data}})
    assert varying(plan.trials) == ["data.name", "method.name", "method.students"]


@pytest.mark.thorough
def test_flops_are_counted_forward_and_backward() -> None:
    build = "resnet20"
    baseline = flops_per_image(BaselineSettings(), build, 10, 32)
    # resnet20 with 1×1 shortcuts has 40.8 million multiplications and additions an image; backward is twice forward,
    # but for the gradient of the images
    net = BACKBONES[build](10)
    macs = 0
    for name, layer in net.named_modules():
        side = 16 if "layer2" in name else 8 if "layer3" in name else 32
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.dim() == 4:
            macs += weight.numel() * side**2
        elif weight is not None and weight.dim() == 2:
            macs += weight.numel()
    assert baseline == 6 * macs - 2 * net.get_parameter("conv1.weight").numel() * 32**2
    assert flops_per_image(DmlSettings(students=3), build, 10, 32) == 3 * baseline
    ffsd = [flops_per_image(FfsdSettings(students=n), build, 10, 32) for n in (2, 3)]
    assert 3 * baseline < ffsd[0] < ffsd[1]


def test_flops_are_those_of_torch() -> None:
    with meta_device():
        group = meta_group(FfsdSettings(), "resnet8", 10, 16)
        images, labels = torch.empty(2, 3, 16, 16), torch.empty(2, dtype=torch.long)
    with FlopCounterMode(display=False) as theirs, FlopCounter() as counter:
        group([images], labels, group.phases[0].name).total.backward()
    assert counter.total == theirs.get_total_flops() > 0


def test_dry_run_shows_trials_and_totals(load: LoadJob) -> None:
    console = Console(width=160, record=True)
    methods = [{"name": "baseline"}, {"name": "ffsd", "students": 3}]
    also = [{"scale": {"gpus_per_worker": 0.5}}, {"data": {"name": "image_folder", "root": "x"}}]
    plan = load(method={"name": "dml"}, search={"grid": {"method": methods}, "also": also})
    console.print(describe(plan))
    text = console.export_text()
    for trial in plan.trials:
        assert trial.identity() in text
    assert "1 × 1 CPU + 0.5 GPU" in text
    assert "Total: 4 trials, 16 epochs." in text
    assert "Cost of 1 trial unknown" in text
    assert "GFLOP/s this machine reaches on one thread" in text
    seen = {trial.method.name: training_flops(trial) for trial in plan.trials}
    assert seen["baseline"] == flops_per_image(BaselineSettings(), "resnet20", 10, 16) * 1437 * 4


def test_dry_run_counts_the_images_that_are_trained_on(load: LoadJob) -> None:
    [trial] = load("train.batch_size=100", "data.validation=0.1").trials
    dataset = read_images(trial.data)
    assert dataset.val is not None
    trained = len(dataset.train)
    assert trained + len(dataset.val) == trial.data.known_train_images
    assert training_flops(trial) == flops_per_image(trial.method, "resnet20", 10, 16) * trained * 4
    [cut] = load("train.batch_size=100", "train.steps_per_epoch=3").trials
    assert training_flops(cut) == flops_per_image(trial.method, "resnet20", 10, 16) * 300 * 4


@pytest.mark.parametrize("method", METHODS)
def test_a_spec_survives_its_records(method: str) -> None:
    """Written as JSON and read back, a spec is the same trial, to the last type."""
    spec = digits_spec({"name": method})
    back = TrialSpec.model_validate(json.loads(json.dumps(spec.model_dump())))
    assert repr(back) == repr(spec)
    assert back.identity() == spec.identity()


def test_a_sweep_moves_one_key_at_a_time(load: LoadJob) -> None:
    """Each key over its values while the others stay; the common default is one trial; a grid crosses it."""
    sweep = {"method.lambda_div": [0.1, 1.0, 10.0], "method.temperature": [2, 3]}
    plan = load(search={"sweep": sweep})
    found = values(plan, "method.lambda_div", "method.temperature")
    assert found == [(0.1, 3), (1.0, 3), (10.0, 3), (1.0, 2)]
    crossed = load(search={"grid": {"method.students": [2, 3]}, "sweep": sweep}, seed=[0, 1])
    assert len(crossed.trials) == 2 * 4 * 2
    with pytest.raises(JobError, match=r"search\.sweep\.methd\.alpha"):
        load(search={"sweep": {"methd.alpha": [1]}})
