"""What trials need, and what nodes hold."""

from typing import Any

import pytest

from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.launch.cluster.capacity import (
    GIB,
    AutoscalerLimits,
    NodeType,
    ResourceRequest,
    count_fitting,
    largest,
    resources_of,
)
from ffsd_ray.launch.cluster.connection import Cluster
from ffsd_ray.launch.cluster.gpu_share import share
from ffsd_ray.launch.trial import trains_here
from ffsd_ray.train.gpu_memory import Reading

from helpers.specs import digits_spec

CPU = ResourceRequest(1, {"CPU": 1})
THIRD = ResourceRequest(1, {"CPU": 1, "GPU": 0.3333})


def test_a_trial_needs_what_its_workers_reserve() -> None:
    scale = ScaleSettings(workers=2, cpus_per_worker=4, gpus_per_worker=0.5, memory_per_worker_gib=1.5)
    assert resources_of(scale) == ResourceRequest(2, {"CPU": 4, "GPU": 0.5, "memory": 1.5 * GIB})
    assert resources_of(ScaleSettings()) == CPU
    assert str(resources_of(scale)) == "2 workers of 4 CPUs, 0.5 GPUs, 1.5 GiB of memory each"


def test_trials_are_held_in_order_until_one_has_no_room() -> None:
    assert count_fitting([{"CPU": 2}, {"CPU": 1}], [CPU] * 9) == 3
    assert count_fitting([{"CPU": 2}, {"CPU": 1}], [CPU, ResourceRequest(1, {"CPU": 2}), CPU]) == 1
    assert count_fitting([{"CPU": 8}], [ResourceRequest(1, {"CPU": 1, "GPU": 1})]) == 0
    assert count_fitting([], []) == 0


def test_a_worker_lies_on_one_node_and_a_trial_on_several() -> None:
    nodes = [{"CPU": 2}, {"CPU": 2}]
    assert count_fitting(nodes, [ResourceRequest(1, {"CPU": 3})]) == 0
    assert count_fitting(nodes, [ResourceRequest(4, {"CPU": 1})]) == 1
    assert count_fitting(nodes, [ResourceRequest(3, {"CPU": 1}), CPU, CPU]) == 2


@pytest.mark.parametrize("part", [3, 5, 6, 7, 8])
def test_shares_of_a_gpu_add_up(part: int) -> None:
    gpus = share(Reading(total=100 * part, peak=90))
    assert count_fitting([{"GPU": 1}], [ResourceRequest(1, {"GPU": gpus})] * 2 * part) == part


def test_an_autoscaler_adds_no_more_than_its_types_allow() -> None:
    gpu = NodeType("gpu", {"CPU": 4, "GPU": 1}, 2)
    assert count_fitting([{"CPU": 1}], [THIRD] * 20, AutoscalerLimits([gpu], 9)) == 6
    assert count_fitting([], [THIRD] * 3, AutoscalerLimits([gpu._replace(most=1000)], 1)) == 3


def test_an_autoscaler_adds_no_more_than_it_may_in_all() -> None:
    """Whatever its types add up to."""
    spot, steady = (NodeType(name, {"CPU": 4, "GPU": 1}, 4) for name in ("spot", "steady"))
    assert count_fitting([], [THIRD] * 99, AutoscalerLimits([spot, steady], 5)) == 15
    assert count_fitting([], [ResourceRequest(6, {"CPU": 1, "GPU": 1})], AutoscalerLimits([spot, steady], 5)) == 0
    assert count_fitting([], [ResourceRequest(6, {"CPU": 1, "GPU": 1})], AutoscalerLimits([spot, steady], 6)) == 1


def test_a_node_is_started_of_the_type_that_holds_most() -> None:
    """Else many workers would seem to ask for more nodes than there may be."""
    small, large = NodeType("small", {"CPU": 1}, 9), NodeType("large", {"CPU": 8}, 9)
    assert count_fitting([], [ResourceRequest(8, {"CPU": 1})], AutoscalerLimits([small, large], 1)) == 1


@pytest.mark.parametrize(
    ("workers", "holds", "under_way"),
    [(0, [True, True, False], 2), (1, [True, True, False], 1), (2, [True, True, False], 0)],
)
def test_workers_of_another_type_take_room(
    workers: int, holds: list[bool], under_way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until they are idle and go: what could be held then is not refused."""
    nodes = [{"CPU": 0, "node:__internal_head__": 1.0}, *[{"CPU": 1}] * workers]
    monkeypatch.setattr(Cluster, "nodes", lambda self: nodes)
    cluster = Cluster(AutoscalerLimits([NodeType("gpu", {"CPU": 4, "GPU": 1}, 4)], 2), patience=0)
    gpu = {"CPU": 4, "GPU": 1}
    assert (
        list(cluster.could_hold([ResourceRequest(1, gpu), ResourceRequest(2, gpu), ResourceRequest(3, gpu)])) == holds
    )
    assert cluster.count_concurrent([ResourceRequest(1, gpu)] * 9, ahead=4) == under_way


def test_gpus_are_packed_by_measured_memory() -> None:
    gib = 2**30
    assert share(Reading(total=80 * gib, peak=10 * gib)) == pytest.approx(1 / 7, abs=1e-4)
    assert share(Reading(total=80 * gib, peak=36 * gib)) == 0.5
    assert share(Reading(total=80 * gib, peak=37 * gib)) == 1
    assert share(Reading(total=10 * gib, peak=20 * gib)) == 1
    assert share(Reading(total=80 * gib, peak=1)) == 1 / 8, "more do not gain"


def test_the_largest_node_is_the_one_with_most_gpus() -> None:
    nodes: dict[str, dict[str, float]] = {
        "node 192.0.2.1": {"CPU": 64, "memory": 2.5 * GIB},
        "node type a100": {"CPU": 8, "GPU": 1, "memory": 16 * GIB},
    }
    assert largest(nodes) == "node type a100 with 8 CPUs, 1 GPU, 16.0 GiB of memory"
    del nodes["node type a100"]
    assert largest(nodes) == "node 192.0.2.1 with 64 CPUs, 0 GPUs, 2.5 GiB of memory"


@pytest.mark.parametrize(
    ("scale", "own_cluster", "population", "here"),
    [
        ({}, True, False, True),
        ({}, False, False, False),
        ({}, False, True, True),
        ({"workers": 2}, True, False, False),
        ({"workers": {"min": 1, "max": 2}}, True, False, False),
        ({"launcher": "trainer"}, True, False, False),
        ({"launcher": "trial"}, False, False, True),
    ],
)
def test_where_a_trial_trains(scale: dict[str, Any], own_cluster: bool, population: bool, here: bool) -> None:
    """Whether the scale is the job's, or chosen while others run."""
    mutable = ["train.lr"] * population
    spec = digits_spec({"name": "ffsd"})
    trial = {"own_cluster": own_cluster, "mutable": mutable}
    planned = spec.changed(scale=ScaleSettings.model_validate(scale)).model_dump()
    assert trains_here({"trial": trial | {"spec": planned}}) is here
    chosen = {f"scale.{key}": value for key, value in scale.items()}
    unscaled = spec.changed(scale=ScaleSettings()).model_dump()
    assert trains_here({"trial": trial | {"spec": unscaled}, "chosen": chosen}) is here
