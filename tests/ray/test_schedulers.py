"""Trials that Ray Tune stops, or has go on from one another, on a cluster of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from ffsd_ray.records.run import RunRecords
from ffsd_ray.run import main

from helpers.commands import wait_for
from helpers.comparison import latest_state
from helpers.ray_state import alive

pytestmark = [pytest.mark.ray, pytest.mark.thorough]

JOB = """
name: searched
data: {name: digits, image_size: 8, validation: 0.2}
backbone: {name: resnet20}
method: {name: ffsd, students: 2}
train: {epochs: 6, batch_size: 16, steps_per_epoch: 2, lr: 0.05, lr_decay: 1.0}
scale: {launcher: trial, trials_at_once: 2}
"""


def searched(folder: Path, search: str) -> RunRecords:
    file = folder / "job.yaml"
    file.write_text(JOB + search)
    assert main([str(file), "--storage", str(folder / "runs")]) == 0
    return RunRecords.open(str(folder / "runs" / "searched"))


@pytest.mark.parametrize(
    "scheduler",
    [
        "{name: asha, grace_epochs: 1, reduction_factor: 2}",
        pytest.param(
            "{name: median_stopping, grace_epochs: 1, min_trials: 1, metric: term/leader/ce}", marks=pytest.mark.slow
        ),
    ],
)
def test_the_worse_trials_are_stopped(scheduler: str, tmp_path: Path) -> None:
    run = searched(
        tmp_path, f"search:\n  grid: {{train.lr: [0.05, 0.04, 0.0001, 0.00005, 0.00001]}}\n  scheduler: {scheduler}\n"
    )
    ends = {identity: run.trial(identity).result() for identity in run.trials()}
    assert {run.trial(identity).state() for identity in ends} == {"completed"}
    stopped = {identity: result for identity, result in ends.items() if result["ended"] != "completed"}
    assert stopped
    assert len(stopped) < len(ends)
    for identity, result in stopped.items():
        assert result["ended"] == f"stopped at {result['last']['epoch']}"
        assert result["last"]["epoch"] < 6
        assert [row["epoch"] for row in run.trial(identity).history()][-1] == result["last"]["epoch"]


@pytest.mark.slow
def test_a_population_goes_on_from_its_best(tmp_path: Path) -> None:
    run = searched(
        tmp_path,
        """
search:
  grid: {method.lambda_fea: [1.0, 10.0, 100.0, 1000.0]}
  scheduler:
    name: pbt
    every_epochs: 2
    quantile_fraction: 0.5
    mutate: {method.lambda_fea: {log_uniform: [1, 1000]}, train.lr: [0.05, 0.02]}
""",
    )
    taken = 0
    for identity in run.trials():
        records = run.trial(identity)
        assert [row["epoch"] for row in records.history()] == [1, 2, 3, 4, 5, 6]
        lineage = latest_state(records)["progress"]["lineage"]
        expected = "; ".join(f"exploited from {note['from']} at {note['epoch']}" for note in lineage)
        assert records.result()["ended"] == (expected or "completed")
        if not lineage:
            continue
        note = lineage[-1]
        donor, own = run.trial(note["from"]).checkpoints.after(note["epoch"]), records.checkpoints.after(note["epoch"])
        torch.testing.assert_close(own["method"], donor["method"], rtol=0, atol=0)
        momenta, theirs = ([each["state"] for each in state["optimisers"].values()] for state in (own, donor))
        torch.testing.assert_close(momenta, theirs, rtol=0, atol=0)
        taken += 1
        assert note["changed"].keys() == {"method.lambda_fea", "train.lr"}
        for after in records.history()[note["epoch"] :]:  # nothing comes after the last epoch of a donor
            assert after["lr"] == note["changed"]["train.lr"]
            assert after["weight/lambda_fea"] <= note["changed"]["method.lambda_fea"]
    assert taken


@pytest.mark.slow
def test_optuna_chooses_trials_and_goes_on_with_what_it_knows(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = """
search:
  random: {method.lambda_fea: {log_uniform: [1, 1000]}, train.lr: [0.05, 0.02]}
  samples: 3
  searcher: {name: optuna, seed: 1}
"""
    run = searched(tmp_path, search)
    specs = run.trials()
    assert len(specs) == 3
    assert all(run.trial(identity).result()["ended"] == "completed" for identity in specs)
    chosen = {(spec["method"]["lambda_fea"], spec["train"]["lr"]) for spec in specs.values()}
    assert len(chosen) == 3
    assert all(1 <= weight <= 1000 and lr in (0.05, 0.02) for weight, lr in chosen)
    assert (
        main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs"), "--resume", "--set", "search.samples=4"])
        == 0
    )
    assert len(run.trials()) == 4
    assert specs.items() < run.trials().items()


@pytest.mark.slow
def test_a_stopped_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    """Workers of Ray Train, whose trial a scheduler ends while they train."""
    head = {"num_cpus": 2, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(cluster.address, log_to_driver=False)
        file = tmp_path / "job.yaml"
        search = (
            "{grid: {train.lr: [0.05, 1.0e-7]}, scheduler: {name: asha, reduction_factor: 2, metric: term/leader/ce}}"
        )
        file.write_text(
            JOB.replace("launcher: trial, trials_at_once: 2", "launcher: trainer, trials_at_once: 1")
            + f"search: {search}\n"
        )
        command = [sys.executable, "-m", "ffsd_ray.run", str(file), "--storage", str(tmp_path / "runs")]
        done = subprocess.run(
            command, env=os.environ | {"RAY_ADDRESS": cluster.address}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        run = RunRecords.open(str(tmp_path / "runs" / "searched"))
        ends = [run.trial(identity).result()["ended"] for identity in run.trials()]
        assert ends[0] == "completed"
        assert ends[1].startswith("stopped at ")
        wait_for(lambda: alive() == ([], 0), "nothing left behind")
    finally:
        ray.shutdown()
        cluster.shutdown()
