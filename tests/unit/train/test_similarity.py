"""How alike common students are: by hand, for equal students, over workers, in the records."""

from pathlib import Path

import pytest
import torch

from ffsd_ray import data
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.methods.dml import Dml
from ffsd_ray.methods.ffsd import Ffsd
from ffsd_ray.train.build import build_method
from ffsd_ray.train.similarity import cosines, similarity

from helpers.specs import digits_spec
from helpers.workers import run_workers, train_with


def test_cosines_by_hand() -> None:
    """Two images, maps of one channel and two pixels; three students make three pairs."""
    first = torch.tensor([[[[3.0, 4.0]]], [[[1.0, 0.0]]]])
    second = torch.tensor([[[[4.0, 3.0]]], [[[0.0, 2.0]]]])
    third = torch.tensor([[[[6.0, 8.0]]], [[[5.0, 0.0]]]])
    assert cosines([first, second]).tolist() == pytest.approx([24 / 25, 0])
    # image 1: 24/25, 1, 24/25; image 2: 0, 1, 0
    assert cosines([first, second, third]).tolist() == pytest.approx([(24 / 25 * 2 + 1) / 3, 1 / 3])


def test_similarity_averages_over_images_whatever_the_batches() -> None:
    method = build_method(digits_spec({"name": "dml", "students": 3}), 10, 12)
    assert isinstance(method, Dml)
    images = torch.randn(5, 3, 12, 12)
    labels = torch.zeros(5, dtype=torch.long)
    device = torch.device("cpu")
    found = similarity(method, [(images[:4], labels[:4]), (images[4:], labels[4:])], device)
    assert not method.training
    with torch.inference_mode():
        maps = [student(images).maps[-1] for student in method.students]
    pairs = [(0, 1), (0, 2), (1, 2)]
    of_maps = [torch.cosine_similarity(maps[a].flatten(1), maps[b].flatten(1)).mean().item() for a, b in pairs]
    looks = [m.square().sum(dim=1).flatten(1) for m in maps]
    of_looks = [torch.cosine_similarity(looks[a], looks[b]).mean().item() for a, b in pairs]
    assert found["maps"] == pytest.approx(sum(of_maps) / 3, rel=1e-5)
    assert found["attention"] == pytest.approx(sum(of_looks) / 3, rel=1e-5)
    assert found["maps"] < 0.999


def test_equal_students_have_similarity_one() -> None:
    method = build_method(digits_spec({"name": "ffsd"}), 10, 12)
    assert isinstance(method, Ffsd)
    method.students[1].load_state_dict(method.students[0].state_dict())
    found = similarity(method, [(torch.randn(3, 3, 12, 12), torch.zeros(3))], torch.device("cpu"))
    assert found == pytest.approx({"maps": 1, "attention": 1})


def _measure(rank: int, world_size: int, folder: Path) -> None:
    spec = digits_spec({"name": "ffsd"})
    dataset = data.load(spec.data)
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    # 37 images, so that neither shares nor batches are equal
    test = dataset.test.select(torch.arange(37))
    batches = EvalBatches(test, dataset.mean, dataset.std, batch_size=8, rank=rank, world_size=world_size)
    found = similarity(method, batches, torch.device("cpu"))
    torch.save(found, folder / f"{rank} of {world_size}.pt")


@pytest.mark.slow
@pytest.mark.thorough
def test_two_workers_measure_what_one_does(tmp_path: Path) -> None:
    _measure(0, 1, tmp_path)
    run_workers(2, _measure, tmp_path)
    one = torch.load(tmp_path / "0 of 1.pt")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank} of 2.pt") == pytest.approx(one, rel=1e-6)


@pytest.mark.thorough
def test_result_holds_the_similarity_of_the_last_networks(tmp_path: Path) -> None:
    spec = digits_spec({"name": "dml"}, epochs=1, workers=2)
    records = train_with(spec, tmp_path)
    dataset = data.load(spec.data)
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    state = records.checkpoints.latest()
    assert state is not None
    method.load_state_dict(state["method"])
    batches = EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=100)
    expected = similarity(method, batches, torch.device("cpu"))
    assert records.result()["similarity"] == pytest.approx(expected, rel=1e-5)


def test_one_network_has_no_similarity(tmp_path: Path) -> None:
    result = train_with(digits_spec({"name": "baseline"}, epochs=1), tmp_path).result()
    assert "similarity" not in result
