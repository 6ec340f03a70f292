"""Random draws, variants, constraints, who chooses the trials and who stops them, and resources that grow with n."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from rich.console import Console

from ffsd_ray.config.distributions import Distribution
from ffsd_ray.config.expansion.sampling import draw
from ffsd_ray.config.inspection.dry_run import describe
from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.load import Plan, load_job, with_values
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.searchers import Optuna, Ranking
from ffsd_ray.config.smoke import smoke
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.errors import JobError
from ffsd_ray.launch.driver import Driver
from ffsd_ray.run import main

from helpers.plans import LoadJob, values

BASE: dict[str, Any] = {
    "name": "job",
    "data": {"name": "digits", "validation": 0.1},
    "backbone": {"name": "resnet20"},
    "method": {"name": "ffsd", "students": 2},
    "train": {"epochs": 40},
}


@pytest.fixture
def load(tmp_path: Path) -> LoadJob:
    return LoadJob(tmp_path, BASE)


class Refused:
    """Loads a job file that is refused for one problem."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, text: str, **sections: Any) -> str:
        """The message on the base job with a line `text` behind it; it points to the arrow in the text."""
        before = yaml.safe_dump(BASE | sections, sort_keys=False)
        path = self._folder / "job.yaml"
        path.write_text(before + text.replace("→", "") + "\n")
        with pytest.raises(JobError) as caught:
            load_job(path)
        message = str(caught.value).replace(f"{self._folder}/", "")
        print(message)
        assert message.endswith("\n1 problem")
        assert message.startswith(f"job.yaml:{before.count(chr(10)) + 1}:{text.index('→') + 1}  ")
        return message


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    return Refused(tmp_path)


def table(plan: Plan) -> str:
    console = Console(width=200, record=True)
    console.print(describe(plan))
    return console.export_text()


LAMBDAS = {"method.lambda_div": {"log_uniform": [1e-8, 1e-2]}, "method.alpha": {"uniform": [0.5, 2]}}


def test_draws_are_crossed_with_everything_else(load: LoadJob) -> None:
    search = {"random": LAMBDAS, "samples": 3, "grid": {"method.students": [2, 3]}}
    found = values(load(search=search, seed=[0, 1]), "method.students", "method.lambda_div", "method.alpha", "seed")
    drawn = list(dict.fromkeys(row[1:3] for row in found))
    assert len(drawn) == 3
    assert found == [(n, *pair, seed) for n in (2, 3) for pair in drawn for seed in (0, 1)]


def test_a_keys_draws_depend_on_the_sampling_seed_and_the_key_alone(load: LoadJob) -> None:
    def divs(**search: Any) -> list[float]:
        plan = load(search={"random": LAMBDAS, "samples": 4} | search)
        return [value for (value,) in values(plan, "method.lambda_div")]

    first = divs()
    assert divs(random=LAMBDAS | {"train.lr": [0.1, 0.2]}) == first
    assert divs(random=dict(reversed(LAMBDAS.items()))) == first
    assert divs(samples=7)[:4] == first
    assert divs(grid={"method.students": [3]}) == first
    assert not set(divs(sampling_seed=1)) & set(first)


def test_draws_are_where_they_should_be_and_can_be_typed_again() -> None:
    def drawn(kind: str, ends: list[Any]) -> list[Any]:
        return draw("method.alpha", Distribution.model_validate({kind: ends}), 2000, 0)

    log = drawn("log_uniform", [1e-8, 1e-2])
    assert all(1e-8 <= value <= 1e-2 and float(f"{value:.4g}") == value for value in log)
    assert 0.45 < sum(value < 1e-5 for value in log) / 2000 < 0.55
    even = drawn("uniform", [-1, 3])
    assert -1 <= min(even) < -0.98
    assert 2.98 < max(even) <= 3
    whole = drawn("integers", [2, 6])
    assert {type(value) for value in whole} == {int}
    assert all(320 < whole.count(value) < 480 for value in range(2, 7))
    assert len(set(whole)) == 5
    choice = drawn("choice", ["a", None, True])
    assert all(choice.count(value) > 550 for value in ("a", None, True))
    # an end with more digits than are kept is not overstepped
    assert all(0.123456 <= value <= 0.123457 for value in drawn("uniform", [0.123456, 0.123457]))


def test_the_draws_stay_as_they_are() -> None:
    """A job file's trials are the same in every version."""
    assert draw("method.lambda_div", Distribution(log_uniform=[1e-8, 1e-2]), 3, 0) == [2.424e-05, 3.94e-06, 0.003023]


def test_whole_sections_can_be_drawn(load: LoadJob) -> None:
    nets = [{"name": "resnet20"}, {"name": "resnet32"}]
    plan = load(search={"random": {"backbone": nets, "train.lr": {"uniform": [0.1, 1]}}, "samples": 12})
    assert {name for (name,) in values(plan, "backbone.name")} == {"resnet20", "resnet32"}


VARIANTS = {
    "plain": {"method": {"name": "dml"}},
    "published": {},
    "printed": {"method": {"formulation": "paper"}, "train.lr": 0.05},
}


def test_variants_are_an_axis_with_names(load: LoadJob) -> None:
    plan = load(search={"variants": VARIANTS, "grid": {"method.students": [2, 3]}}, seed=[0, 1])
    assert len(plan.trials) == 3 * 2 * 2
    found = values(plan, "variant", "method.name", "method.formulation", "train.lr", "method.students")[::2]
    assert found == [
        (*variant, n)
        for variant in [
            ("plain", "dml", "published", 0.1),
            ("published", "ffsd", "published", 0.1),
            ("printed", "ffsd", "paper", 0.05),
        ]
        for n in (2, 3)
    ]
    # the name says what the variant sets
    assert varying(plan.trials) == ["variant", "method.students", "seed"]
    assert "printed" in table(plan)
    labels = trial_labels(plan.trials, ["variant", "method.students"])
    assert labels[plan.trials[-1].identity()] == "printed, students=3, seed 1"


def test_a_variants_name_is_no_part_of_identity_and_goes_into_the_records(load: LoadJob) -> None:
    named = load(search={"variants": {"a": {}, "b": {"train.lr": 1}}})
    plain = load(search={"grid": {"train.lr": [0.1, 1]}})
    assert [trial.identity() for trial in named.trials] == [trial.identity() for trial in plain.trials]
    trial = named.trials[1]
    back = type(trial).model_validate(json.loads(json.dumps(trial.model_dump())))
    assert (back.variant, back) == ("b", trial)


def test_a_variant_merges_into_a_section_of_the_grid(load: LoadJob) -> None:
    grid = {"method": [{"name": "dml", "students": 4}, {"name": "ffsd", "students": 5}]}
    plan = load(search={"grid": grid, "variants": {"soft": {"method": {"temperature": 4.0}}}})
    assert values(plan, "method.name", "method.students", "method.temperature") == [("dml", 4, 4.0), ("ffsd", 5, 4.0)]


def test_sections_may_come_from_variants_alone(load: LoadJob) -> None:
    variants = {"one": {"method": {"name": "baseline"}}, "two": {"method": {"name": "dml"}}}
    assert values(load(method=None, search={"variants": variants}), "method.name") == [("baseline",), ("dml",)]


def test_only_keeps_what_satisfies_every_constraint(load: LoadJob) -> None:
    grid = {"backbone.name": ["resnet20", "resnet32", "resnet56"], "method.students": [2, 3, 4]}
    only = [
        {"when": {"backbone.name": "resnet56"}, "then": {"method.students": [2, 3]}},
        {"when": {"method.students": [3, 4]}, "then": {"backbone.name": ["resnet32", "resnet56"]}},
    ]
    plan = load(search={"grid": grid, "only": only, "also": [{"method.students": 9}]})
    found = values(plan, "backbone.name", "method.students")
    kept = [("resnet20", 2), ("resnet32", 2), ("resnet32", 3), ("resnet32", 4), ("resnet56", 2), ("resnet56", 3)]
    assert found == [*kept, ("resnet20", 9)]


def test_only_sees_defaults_and_variants_and_leaves_absent_keys_alone(load: LoadJob) -> None:
    grid = {"train.lr": [0.1, 1.0], "method": [{"name": "baseline"}, {"name": "dml"}]}
    # temperature is dml's default; a baseline has none
    only: list[dict[str, dict[str, Any]]] = [{"when": {"train.lr": 1}, "then": {"method.temperature": 2}}]
    assert len(load(search={"grid": grid, "only": only}).trials) == 4
    only = [{"when": {"train.lr": 1}, "then": {"method.temperature": 3}}]
    found = values(load(search={"grid": grid, "only": only}), "train.lr", "method.name")
    assert found == [(0.1, "baseline"), (1.0, "baseline"), (0.1, "dml")]
    only = [{"when": {"variant": "b"}, "then": {"seed": 0}}]
    variants: dict[str, Any] = {"a": {}, "b": {"train.lr": 2}}
    found = values(load(search={"variants": variants, "only": only}, seed=[0, 1]), "variant", "seed")
    assert found == [("a", 0), ("a", 1), ("b", 0)]


@pytest.mark.parametrize(
    ("search", "key", "said"),
    [
        ("→random: {method.alpha: {uniform: [1, 2]}}", "search.random", "Needs search.samples"),
        ("samples: →3", "search.samples = 3", "Needs search.random"),
        ("samples: 2, random: {method.alpha: {uniform: →[2, 1]}}", "search.random.method.alpha.uniform", "less"),
        ("samples: 2, random: {method.alpha: {log_uniform: →[0, 1]}}", "search.random.method.alpha", "than 0"),
        ("samples: 2, random: {method.alpha: {integers: [0, →1.5]}}", "search.random.method.alpha", "whole"),
        ("samples: 2, random: {method.alpha: {uniform: →[1]}}", "search.random.method.alpha.uniform", "2 items"),
        ("samples: 2, random: {method.alpha: {→unifrom: [0, 1]}}", "search.random.method.alpha", "`uniform`?"),
        ("samples: 2, random: {→method.alpha: {}}", "search.random.method.alpha", "one of uniform, log_uniform"),
        ("samples: 2, random: {→methd.alpha: [1]}", "search.random.methd.alpha", "`method.alpha`?"),
        ("samples: 2, random: {→seed: [1, 2]}", "search.random.seed", "every seed"),
        ("samples: 2, random: {method.alpha: →{uniform: [-9, 1]}}", "method.alpha", "0 or more"),
        ("samples: 2, random: {method.students: →{uniform: [2, 5]}}", "method.students", "whole number"),
        ("samples: 2, random: {train.lr: →[1, 2]}, grid: {train.lr: [3]}", "search.random.train.lr", "grid"),
        ("variants: {a: {}, →b: {train.lr: 0.1}}", "search.variants.b", "variant a gives too"),
        ("variants: {a: {→seed: 3}}", "search.variants.a.seed", "every seed"),
        ("variants: {a: {→trian.lr: 3}}", "search.variants.a.trian.lr", "`train.lr`?"),
        ("variants: {a: →3}", "search.variants.a", "a section"),
        ("variants: {a: {train.lr: →-3}}", "train.lr = -3", "more than 0"),
        (
            "only: [→{when: {seed: 7}, then: {train.lr: 1}}]",
            "search.only[0].when",
            "No combination has seed = 7",
        ),
        ("only: [→{when: {seed: 0}, then: {train.lr: 1}}]", "search.only[0]", "Leaves none of the 1"),
        ("only: [{when: {→sede: 0}, then: {train.lr: 1}}]", "search.only[0].when.sede", "`seed`?"),
        ("only: [→{when: {seed: 0}}]", "search.only[0].then", "Missing. Dotted keys"),
        ("only: [{→when: {}, then: {seed: 1}}]", "search.only[0].when", "1 item or more"),
        ("grid: {→variant: [a]}", "search.grid.variant", "Unknown key"),
    ],
)
def test_wrong_search_spaces(refused: Refused, search: str, key: str, said: str) -> None:
    message = refused(f"search: {{{search}}}")
    assert f"  {key}" in message.splitlines()[0]
    assert said in message


def test_a_key_is_set_in_one_place(load: LoadJob) -> None:
    variants = {"a": {"train": {"lr": 1}}, "b": {"train.lr": 2}}
    with pytest.raises(JobError, match=r"variants\.a\.train\.lr(.|\n)*variants\.b\.train\.lr(.|\n)*2 problems"):
        load(search={"variants": variants, "grid": {"train.lr": [1]}})


def test_what_the_search_sets_cannot_be_set_over_it(load: LoadJob) -> None:
    random = {"random": {"train.lr": {"uniform": [0.1, 1]}}, "samples": 2}
    for search in (random, {"variants": {"a": {"train": {"lr": 1}}, "b": {"train.lr": 2}}}):
        with pytest.raises(JobError, match=r"sets `train\.lr` in every trial"):
            load("train.lr=3", search=search)
    [trial] = load("search.samples=1", "search.random.train.lr={uniform: [5, 6]}", search=random).trials
    assert 5 <= trial.train.lr <= 6
    # one variant alone may leave a key to the job
    plan = load("train.lr=3", search={"variants": {"a": {}, "b": {"train.lr": 2}}})
    assert values(plan, "train.lr") == [(3.0,), (2.0,)]


SCHEDULED = {"method.alpha": [1, 2, 3]}
PBT = "name: pbt, mutate: {train.lr: {log_uniform: [0.01, 1]}, method.alpha: [1, 2]}"


@pytest.mark.parametrize(
    ("scheduler", "column", "direction"),
    [
        ("name: asha", "val/leader/top1", "max"),
        ("name: asha, by_test: true", "test/leader/top1", "max"),
        ("name: asha, metric: val/students_mean/loss", "val/students_mean/loss", "min"),
        ("name: median_stopping, metric: term/leader/ce", "term/leader/ce", "min"),
        ("name: median_stopping, metric: term/leader/ce, mode: max", "term/leader/ce", "max"),
        (f"{PBT}, metric: train/ensemble_any/top1", "train/ensemble_any/top1", "max"),
    ],
)
def test_schedulers_and_what_they_rank_by(load: LoadJob, scheduler: str, column: str, direction: str) -> None:
    plan = load(f"search.scheduler={{{scheduler}}}", search={"grid": SCHEDULED})
    ranking = plan.job.search.scheduler
    assert isinstance(ranking, Ranking)
    assert ranking.column(plan.trials[0].method.primary_series) == column
    assert ranking.direction == direction
    # what is recorded reads back as it was
    back = type(plan.job).model_validate(json.loads(json.dumps(plan.job.model_dump())))
    assert back.search == plan.job.search


@pytest.mark.parametrize(
    ("scheduler", "key", "said"),
    [
        (
            "scheduler: {name: →ash}",
            'search.scheduler.name = "ash"',
            "one of all, asha, median_stopping, pbt. Did you mean",
        ),
        ("→scheduler: {grace_epochs: 3}", "search.scheduler.name", "Missing. Should be one of all, asha"),
        ("scheduler: →ash", 'search.scheduler.name = "ash"', "one of all, asha, median_stopping, pbt. Did you mean"),
        ("scheduler: →3", "search.scheduler = 3", "Should be a section, such as {key: value}."),
        ("scheduler: {name: asha, grace_epochs: →0}", "search.scheduler.grace_epochs = 0", "1 or more"),
        (
            "scheduler: {name: asha, →min_trials: 3}",
            "search.scheduler.min_trials",
            "asha has no such key (median_stopping has",
        ),
        ("scheduler: {name: asha, →grase_epochs: 3}", "search.scheduler.grase_epochs", "`grace_epochs`?"),
        ("scheduler: {name: asha, grace_epochs: →40}", "search.scheduler.grace_epochs", "less than the 40 epochs"),
        ("scheduler: {name: asha, metric: →accuracy}", "search.scheduler.metric", "such as val/leader/top1"),
        (
            "scheduler: {name: asha, metric: →val/leeder/top1}",
            "search.scheduler.metric",
            "ffsd on resnet20 has no such column.",
        ),
        ("scheduler: {name: asha, metric: →val/leader/top5}", "search.scheduler.metric", "`val/leader/top1`?"),
        ("scheduler: {name: asha, metric: →term/leader/kll}", "search.scheduler.metric", "`term/leader/kl`?"),
        ("scheduler: {name: asha, metric: →test/leader/top1}", "search.scheduler.metric", "the test images"),
        (
            "scheduler: {name: asha, metric: val/leader/top1, by_test: →true}",
            "search.scheduler.by_test",
            "none of theirs",
        ),
        ("→scheduler: {name: pbt}", "search.scheduler.mutate", "Missing. What changes then"),
        ("scheduler: {name: pbt, →mutate: {}}", "search.scheduler.mutate", "1 item or more"),
        (
            "scheduler: {name: pbt, mutate: {→train.batch_size: [8]}}",
            "search.scheduler.mutate.train.batch_size",
            "Cannot change",
        ),
        ("scheduler: {name: pbt, mutate: {train.lr: [→0]}}", "train.lr = 0", "more than 0"),
        ("scheduler: {name: pbt, mutate: {train.lr: →[]}}", "search.scheduler.mutate.train.lr", "1 item"),
        (
            "scheduler: {name: pbt, mutate: {train.lr: [1]}, every_epochs: →40}",
            "search.scheduler.every_epochs",
            "less than",
        ),
    ],
)
def test_wrong_schedulers(refused: Refused, scheduler: str, key: str, said: str) -> None:
    message = refused(f"search: {{{scheduler}, grid: {{method.alpha: [1, 2, 3]}}}}")
    assert f"  {key}" in message.splitlines()[0]
    assert said in message


def test_ranking_needs_held_out_images_or_says_that_it_does_without(refused: Refused) -> None:
    for scheduler in ("→scheduler: {name: asha}", "scheduler: {name: asha, metric: →val/leader/loss}"):
        message = refused(f"search: {{{scheduler}}}", data={"name": "digits"})
        assert "set data.validation or by_test: true" in message


@pytest.mark.parametrize(
    "search",
    [
        "scheduler: {name: →asha}",
        "scheduler: {name: →median_stopping}",
        "scheduler: {name: →pbt, every_epochs: 4, mutate: {train.lr: [1, 2]}}, grid: {method.alpha: [1, 2]}",
        "searcher: {name: →optuna}, samples: 2, random: {train.lr: [1, 2]}",
    ],
)
def test_ranking_needs_the_evaluation_of_every_epoch(refused: Refused, search: str) -> None:
    message = refused(f"search: {{{search}}}", train={"epochs": 40, "evaluate_every": 2})
    assert "train.evaluate_every should be 1, not 2" in message


def test_a_population_is_alike(refused: Refused, load: LoadJob) -> None:
    text = f"search: {{scheduler: {{{PBT}}},\n grid: {{method.lambda_fea: [1, 2], seed: [0, 1]"
    with pytest.raises(JobError, match=r"differ in method\.students"):
        load(search=yaml.safe_load(f"{{scheduler: {{{PBT}}}, grid: {{method.students: [2, 3]}}}}"))
    with pytest.raises(JobError, match="2 trials or more"):
        load(search=yaml.safe_load(f"{{scheduler: {{{PBT}}}}}"))
    with pytest.raises(JobError, match=r"multiple of train\.checkpoint_every = 2"):
        load("train.checkpoint_every=2", search=yaml.safe_load(f"{{scheduler: {{{PBT}}}, grid: {{train.lr: [1, 2]}}}}"))
    for scale in ({"workers": 2}, {"launcher": "trainer"}):
        with pytest.raises(JobError, match=r"Tune's own processes"):
            load(scale=scale, seed=[0, 1], search=yaml.safe_load(f"{{scheduler: {{{PBT}}}}}"))
    with pytest.raises(JobError, match=r"dml has no such key"):
        load(method={"name": "dml"}, seed=[0, 1], search=yaml.safe_load(f"{{scheduler: {{{PBT}}}}}"))
    assert len(load(**yaml.safe_load(text + "}}")).trials) == 4


def test_optuna_chooses_from_the_distributions(load: LoadJob) -> None:
    random = {
        "method.students": {"integers": [2, 4]},
        "method.alpha": {"uniform": [0, 2]},
        "backbone.name": ["resnet20", "resnet32"],
    }
    sections = {"search": {"random": random, "samples": 30, "searcher": {"name": "optuna", "seed": 3}}, "seed": 5}
    plan = load("scale={for_networks: 3, cpus_per_worker: 2, threads: 1}", **sections)
    assert plan.trials == ()
    assert isinstance(plan.job.search.searcher, Optuna)
    assert plan.template is not None
    chosen = with_values(plan.template, {"method.students": 4, "method.alpha": 1.23456789, "backbone.name": "resnet32"})
    keys = ("method.students", "method.alpha", "backbone.name")
    assert [value_at(chosen, key) for key in keys] == [4, 1.235, "resnet32"]
    assert (chosen.seed, chosen.scale.cpus_per_worker) == (5, 4)
    text = table(plan)
    assert "30 trials, chosen by Optuna" in text
    assert "whole, 2 to 4" in text
    assert "at most 1,200 epochs" in text
    short = smoke(plan)
    assert short.template is not None
    assert short.template.train.epochs == 2


def test_a_chosen_trial_is_named_by_what_was_chosen(
    load: LoadJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, text and flags alike; here something else than Ray chooses."""
    random = {"train.lr": {"log_uniform": [0.01, 1]}, "train.nesterov": [True, False], "backbone.name": ["resnet20"]}
    optuna = {"name": "optuna"}
    plan = load(search={"random": random | {"method.formulation": ["paper"]}, "samples": 1, "searcher": optuna})
    template = plan.template
    assert template is not None
    named: dict[str, str] = {}
    values = {"train.lr": 0.0123456, "train.nesterov": True, "backbone.name": "resnet20", "method.formulation": "paper"}

    def choose(driver: Driver, trials: Sequence[TrialSpec]) -> None:
        driver.announce(with_values(template, values))
        named.update(driver.labels)

    monkeypatch.setattr(Driver, "train", choose)
    assert main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs")]) == 1
    assert list(named.values()) == ['ffsd n=2 (paper), lr=0.01235, nesterov=true, resnet20, formulation="paper"']


def test_a_chosen_kind_drops_the_keys_it_has_not(load: LoadJob) -> None:
    [trial] = load().trials
    changed = with_values(trial, {"method.name": "dml", "method.students": 3})
    assert (changed.method.name, value_at(changed, "method.students")) == ("dml", 3)
    assert with_values(trial, {}) == trial


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("→grid: {train.lr: [1]}", "Optuna chooses from search.random alone"),
        ("→sweep: {train.lr: [1]}", "Optuna chooses from search.random alone"),
        ("→variants: {a: {}}", "Optuna chooses from search.random alone"),
        ("also: →[{seed: 3}]", "Optuna chooses from search.random alone"),
        (f"→scheduler: {{{PBT}}}", "Population based training"),
    ],
)
def test_wrong_with_optuna(refused: Refused, search: str, said: str) -> None:
    optuna = "searcher: {name: optuna}, samples: 4, random: {method.alpha: {uniform: [0, 2]}}"
    assert said in refused(f"search: {{{optuna}, {search}}}")


def test_optuna_wants_one_seed_something_to_choose_and_plain_values(load: LoadJob) -> None:
    optuna = {"searcher": {"name": "optuna"}, "samples": 2, "random": {"train.lr": [1, 2]}}
    with pytest.raises(JobError, match="one seed"):
        load(search=optuna, seed=[0, 1])
    with pytest.raises(JobError, match=r"Optuna chooses from search\.random; there is none"):
        load(search={"searcher": {"name": "optuna"}})
    with pytest.raises(JobError, match="numbers, text, true, false and null only"):
        load(search=optuna | {"random": {"backbone": [{"name": "resnet20"}]}})
    with pytest.raises(JobError, match=r"train\.lr = -1(.|\n)*more than 0"):
        load(search=optuna | {"random": {"train.lr": {"uniform": [-1, 2]}}})
    with pytest.raises(JobError, match=r"data\.validation or by_test"):
        load(search=optuna, data={"name": "digits"})


def test_early_stopping_and_optuna_need_ray(load: LoadJob) -> None:
    with pytest.raises(JobError, match=r"search\.scheduler\.name = \"asha\"\n  Works through Ray only"):
        load(context="local", search={"scheduler": {"name": "asha"}})


@pytest.mark.slow
def test_resources_follow_the_number_of_networks(load: LoadJob) -> None:
    scale = {"for_networks": 3, "cpus_per_worker": 2, "gpus_per_worker": 0.3, "memory_per_worker_gib": 6, "threads": 2}
    methods = [{"name": "baseline"}, *({"name": "ffsd", "students": n} for n in (2, 3, 6, 20)), {"name": "dml"}]
    plan = load(scale=scale, method=None, search={"grid": {"method": methods}})
    resources = ("scale.cpus_per_worker", "scale.gpus_per_worker", "scale.memory_per_worker_gib")
    assert values(plan, *resources) == [
        (1, 0.1, 2.0),
        (2, 0.3, 6.0),
        (3, 0.4, 8.0),
        (5, 0.7, 14.0),
        (14, 1.0, 42.0),
        (2, 0.2, 4.0),
    ]
    # threads, which decide bits, are those that were set; the resources themselves decide nothing
    assert {trial.scale.worker_threads for trial in plan.trials} == {2}
    same = load("scale={gpus_per_worker: 1, threads: 2}", method=None, search={"grid": {"method": methods}})
    assert [trial.identity() for trial in plan.trials] == [trial.identity() for trial in same.trials]
    # and name no row
    assert varying(plan.trials) == ["method.name", "method.students"]
    text = table(plan)
    assert "1 × 5 CPU + 0.7 GPU + 14 GiB" in text


def test_threads_follow_the_resolved_cpus_where_they_are_not_set(load: LoadJob) -> None:
    plan = load(scale={"for_networks": 3, "cpus_per_worker": 3}, search={"grid": {"method.students": [2, 5]}})
    assert [trial.scale.worker_threads for trial in plan.trials] == [3, 6]


def test_a_gpu_share_never_packs_more_than_fit_and_stays_whole_above_one() -> None:
    third = ScaleSettings(gpus_per_worker=1, for_networks=3).resolved(1).gpu_share
    assert 3 * third <= 1 < 3.01 * third
    assert ScaleSettings(gpus_per_worker=2, for_networks=2).resolved(3).gpu_share == 2
    assert ScaleSettings(gpus_per_worker=4, for_networks=4).resolved(3).gpu_share == 3
    assert ScaleSettings(gpus_per_worker=0, for_networks=4).resolved(8).gpu_share == 0
    assert ScaleSettings(gpus_per_worker="auto", for_networks=4).resolved(8).gpus_per_worker == "auto"


def test_a_measured_gpu_share(load: LoadJob, refused: Refused) -> None:
    [auto] = load(scale={"gpus_per_worker": "auto"}).trials
    [whole] = load(scale={"gpus_per_worker": 1}).trials
    assert auto.scale.uses_gpu
    assert auto.identity() == whole.identity()
    assert "GPU share as measured" in table(load(scale={"gpus_per_worker": "auto"}))
    for value in ("fast", "-1", "true", "[1]", ".inf"):
        assert "Should be a number, 0 or more, or auto." in refused(f"scale: {{gpus_per_worker: →{value}}}")
    assert "there are 2; use trainer" in refused("scale: {workers: 2, launcher: →trial}")


def test_the_dry_run_says_what_a_scheduler_does(load: LoadJob) -> None:
    asha = load(search={"scheduler": {"name": "asha", "grace_epochs": 5}, "grid": SCHEDULED})
    text = table(asha)
    assert "at most 120 epochs" in text
    assert "asha (max top-1 on the validation split) may stop trials; at least 15 epochs." in text
    pbt = table(load(search=yaml.safe_load(f"{{scheduler: {{{PBT}}}, grid: {{method.alpha: [1, 2]}}}}")))
    assert "changes train.lr, method.alpha every 5 epochs" in pbt
    assert "at most" not in pbt


def test_the_schema_knows_the_search_space(tmp_path: Path) -> None:
    printed = subprocess.run([sys.executable, "-m", "ffsd_ray.schema"], check=True, capture_output=True, text=True)
    validator = jsonschema.Draft202012Validator(json.loads(printed.stdout))
    search = {
        "random": {"train.lr": {"uniform": [0, 1]}, "method.alpha": [1, 2]},
        "samples": 2,
        "variants": {"a": {}},
        "only": [{"when": {"seed": 1}, "then": {"train.lr": [1, 2]}}],
        "scheduler": {"name": "pbt", "mutate": {"train.lr": [1]}},
        "searcher": {"name": "grid"},
    }
    scale = {"gpus_per_worker": "auto", "launcher": "trial", "for_networks": 3, "memory_per_worker_gib": 1.5}
    validator.validate(BASE | {"search": search, "scale": scale})
    wrongs: list[dict[str, Any]] = [
        {"search": {"random": {"train.lr": {"uniform": [0]}}}},
        {"search": {"random": {"train.lr": {}}}},
        {"search": {"random": {"train.lr": {"uniform": [0, 1], "choice": [1]}}}},
        {"search": {"scheduler": {"name": "asha", "min_trials": 2}}},
        {"search": {"scheduler": {"name": "hyperband"}}},
        {"search": {"only": [{"when": {"seed": 1}}]}},
        {"scale": {"gpus_per_worker": "some"}},
        {"scale": {"gpus_per_worker": -1}},
    ]
    for wrong in wrongs:
        assert not validator.is_valid(BASE | wrong), wrong
