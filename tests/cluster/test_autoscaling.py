"""The benchmark of a cluster that scales from nothing."""

import importlib.util
import json
from pathlib import Path

import pytest

from ffsd_ray.bench.autoscaling import Timeline, draw, main

JOB = """\
name: small
backbone: {name: resnet20}
method: {name: ffsd}
data: {name: digits}
train: {epochs: 2, batch_size: 8}
search: {grid: {method.students: [2, 3]}}
"""
SEEN = Timeline(
    [(0.0, 0), (10.0, 0), (11.0, 1), (13.0, 2), (33.0, 2), (34.0, 1), (36.0, 0)],
    {"ffsd n=2": (20.0, 25.5), "ffsd n=3": (18.0, 30.0)},
)


def test_figures() -> None:
    assert SEEN.figures() == {
        "submit_to_first_node": 11.0,
        "submit_to_first_step": 18.0,
        "submit_to_last_result": 30.0,
        "last_result_to_no_node": 6.0,
        "most_nodes": 2,
        "node_seconds": 2 * 1 + 21 * 2 + 2 * 1,
        "trial_seconds": 17.5,
    }


@pytest.mark.thorough
def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "autoscaling.png"
    draw(SEEN.nodes, SEEN.trials, SEEN.moments, "a title", "a caption", out)
    assert out.stat().st_size > 10_000


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("aiohttp_cors") is None, reason="needs ray[default], which takes jobs")
def test_nodes_come_for_a_submitted_job_and_go(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    assert main([str(job), "--out", str(tmp_path)]) == 0
    [record] = tmp_path.glob("bench-*.json")
    found = json.loads(record.read_text())["points"]["small-smoke"]
    assert set(found["trials"]) == {"ffsd n=2", "ffsd n=3"}
    assert 1 <= found["most_nodes"] <= 3
    assert found["nodes"][0][1] == found["nodes"][-1][1] == 0
    assert 0 < found["submit_to_first_node"] < found["submit_to_first_step"] < found["submit_to_last_result"]
    assert found["last_result_to_no_node"] > 0
    assert found["machine"]["cores"] > 0
    assert (tmp_path / "autoscaling.png").is_file()
