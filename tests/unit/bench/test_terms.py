"""What `bench.terms` says of each loss term."""

from pathlib import Path

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.bench.terms import main, term_gradients
from ffsd_ray.methods.ffsd import Ffsd
from ffsd_ray.train.build import build_method, train_batches

from helpers.paths import JOBS
from helpers.specs import digits_spec


@pytest.mark.thorough
def test_values_and_gradient_norms() -> None:
    """Of the first step, against each term's own backward pass; looking changes nothing for the steps after it."""
    spec = digits_spec({"name": "ffsd", "formulation": "paper"}, epochs=1)
    found = list(term_gradients(spec, "it", every=2))
    assert sorted({pull.step for pull in found}) == [0, 2]
    dataset = data.load(spec.data)
    group = build_method(spec, dataset.num_classes, dataset.image_size)
    assert isinstance(group, Ffsd)
    group.begin_epoch(1)
    batch = next(train_batches(spec, dataset, views=1).epoch(1))
    terms = group(batch.views, batch.labels, "all").terms
    for pull in (pull for pull in found if pull.step == 0):
        group.zero_grad()
        terms[f"{pull.member}/{pull.term}"].backward(retain_graph=True)
        squares = [p.grad.square().sum() for p in group.networks[pull.member].parameters() if p.grad is not None]
        assert pull.gradient == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=0.01), pull
        assert pull.value == pytest.approx(terms[f"{pull.member}/{pull.term}"].item(), rel=1e-3)
    seldom = [pull for pull in term_gradients(spec, "it", every=100)]
    assert seldom == [pull for pull in found if pull.step == 0]


@pytest.mark.thorough
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    job = JOBS / "formulations.yaml"
    sets = ["data={name: digits, image_size: 8}", "train.epochs=2", "train.steps_per_epoch=2", "train.batch_size=16"]
    arguments = [argument for each in sets for argument in ("--set", each)]
    assert main([str(job), *arguments, "--every", "2", "--out", str(tmp_path / "terms")]) == 0
    assert (tmp_path / "terms.png").stat().st_size > 10_000
    lines = (tmp_path / "terms.csv").read_text().splitlines()
    # Two formulations, two looks each, at 5 terms of the leader, 2 of the first student and 4 of the second.
    assert len(lines) == 1 + 2 * 2 * 11
    assert main([str(job), *arguments, "--set", "method.name=dml"]) == 2
    assert "terms are measured for ffsd" in capsys.readouterr().err
