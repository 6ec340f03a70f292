"""Training one trial: exactness, resumption, workers, what is measured and recorded."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray import data
from ffsd_ray.data.batches import Batch, TrainBatches
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DamagedRecords, TrialError
from ffsd_ray.evaluate import evaluate
from ffsd_ray.methods import METHODS, Method
from ffsd_ray.quality import confusion_of
from ffsd_ray.records.trial import MODEL_LAST
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method
from ffsd_ray.train.meters import AccuracyMeter, TermMeter
from ffsd_ray.train.step import Step

from helpers.comparison import assert_same_end, measured
from helpers.specs import digits_spec
from helpers.tiers import often
from helpers.workers import run_workers, train_with

#: Which are trained three times for this where there is little time: those that a file more has brought too.
OFTEN = METHODS.keys() - {"afd", "amln", "at", "baseline", "dml", "ffl", "kd", "kdcl", "okddip", "one"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.slow]) for name in METHODS]
)
def test_same_spec_same_bits(method: str, tmp_path: Path) -> None:
    spec = digits_spec({"name": method}, epochs=2)
    first, second = train_with(spec, tmp_path / "a"), train_with(spec, tmp_path / "b")
    assert_same_end(first, second)
    other = train_with(digits_spec({"name": method}, epochs=2, seed=1), tmp_path / "c")
    assert measured(other.history()) != measured(first.history())


@pytest.mark.parametrize("workers", often([1], [1, 2]))
@pytest.mark.parametrize("method", often(["ffsd"], ["baseline", "ffsd"], others="slow"))
def test_resumed_is_never_stopped(method: str, workers: int, tmp_path: Path) -> None:
    spec = digits_spec({"name": method}, workers=workers, epochs=4, data={"validation": 0.2})
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", stop_after=2)
    assert stopped.state() == "unfinished"
    assert len(stopped.history()) == 2
    resumed = train_with(spec, tmp_path / "stopped")
    assert_same_end(whole, resumed)
    assert resumed.result()["confusion"] == whole.result()["confusion"]


@pytest.mark.thorough
def test_resumes_from_an_earlier_checkpoint(tmp_path: Path) -> None:
    """With a checkpoint every other epoch, the epochs after it are trained again, and recorded once."""
    spec = digits_spec({"name": "dml"}, epochs=4, checkpoint_every=2)
    whole = train_with(spec, tmp_path / "whole")
    train_with(spec, tmp_path / "stopped", stop_after=3)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))


NOTICES = [(4, "epoch-000003-step-000002.pt"), (5, "epoch-000003-step-000001.pt")]


@pytest.mark.parametrize(("steps", "heard"), often(NOTICES[:1], NOTICES))
def test_a_notice_is_heard_where_epochs_are_short(steps: int, heard: str, tmp_path: Path) -> None:
    """Shorter than the steps between two questions, of which the second kind would all come after an epoch's last."""
    spec = digits_spec({"name": "baseline"}, epochs=6, steps_per_epoch=steps)
    stopped = train_with(spec, tmp_path / "stopped", noticed=True)
    assert stopped.state() == "unfinished"
    assert stopped.store.child("checkpoints").names()[-1] == heard
    assert_same_end(train_with(spec, tmp_path / "whole"), train_with(spec, tmp_path / "stopped"))


def test_half_a_checkpoint_is_cleared_away(tmp_path: Path) -> None:
    """What a process that was killed had written of one."""
    left = tmp_path / "checkpoints" / ".epoch-000001.pt.4242.part"
    left.parent.mkdir()
    left.write_bytes(b"PK")
    records = train_with(digits_spec({"name": "baseline"}, epochs=1), tmp_path)
    assert records.store.child("checkpoints").names() == ["epoch-000001.pt"]


def _gradients(rank: int, world_size: int, folder: Path) -> None:
    """One step with batch norm in evaluation mode, so that a worker's share does not see its own statistics.

    In float64, so that what is left is not the order of additions.
    """
    spec = digits_spec({"name": "ffsd"}, batch_size=33)
    dataset = data.load(spec.data)
    method = build_method(spec, dataset.num_classes, dataset.image_size).double().eval()
    method.begin_epoch(1)
    batches = TrainBatches(
        dataset.train,
        dataset.mean,
        dataset.std,
        crop_padding=2,
        flip=False,
        batch_size=33,
        seed=0,
        rank=rank,
        world_size=world_size,
    )
    group = method if world_size == 1 else DistributedDataParallel(method)
    batch = next(batches.epoch(1))
    terms = group([view.double() for view in batch.views], batch.labels, "all").terms
    (sum(terms.values()) * batch.weight).backward()
    if rank == 0:
        torch.save([p.grad for p in method.parameters()], folder / f"{world_size}.pt")


@pytest.mark.thorough
def test_two_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    _gradients(0, 1, tmp_path)
    run_workers(2, _gradients, tmp_path)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    difference = max((a - b).abs().max().item() / max(1.0, a.abs().max().item()) for a, b in zip(one, two, strict=True))
    print(f"largest difference of a gradient: {difference:.1e}")
    assert difference < 1e-6
    assert max(a.abs().max().item() for a in one) > 0.01


@pytest.mark.thorough
def test_workers_share_one_global_batch(tmp_path: Path) -> None:
    """Every image is counted once by two workers, whatever the remainder, and a batch norm is worker 0's."""
    spec = digits_spec({"name": "dml"}, workers=2, epochs=1, batch_size=33, steps_per_epoch=None)
    records = train_with(spec, tmp_path)
    row = records.history()[0]
    for split, images in (("train", 1437), ("test", 360)):
        right = row[f"{split}/student1/top1"] / 100 * images
        assert right == pytest.approx(round(right), abs=1e-6)
    assert row["train/student1/loss"] == pytest.approx(row["term/student1/ce"], rel=1e-6)


def _unequal_shares(rank: int, world_size: int, folder: Path) -> None:
    torch.manual_seed(0)
    logits = {f"student{i}": torch.randn(7, 25) for i in (1, 2)}
    labels = torch.randint(25, (7,))
    share = slice(0, 5) if rank == 0 else slice(5, 7)
    share = slice(None) if world_size == 1 else share
    accuracy = AccuracyMeter(list(logits), list(logits), 25, torch.device("cpu"), confusion=True)
    accuracy.update({name: z[share] for name, z in logits.items()}, labels[share])
    terms = TermMeter(torch.device("cpu"))
    loss = torch.nn.functional.cross_entropy(logits["student1"][share], labels[share])
    terms.update({"student1/ce": loss}, 0, len(labels[share]))
    row = accuracy.read("test") | terms.read(1)
    for name, counts in accuracy.confusion().items():
        row |= {f"{name} {place}": count for place, count in enumerate(counts.flatten().tolist())}
    if rank == 0:
        torch.save(row, folder / f"{world_size}.pt")


@pytest.mark.thorough
def test_meters_sum_over_workers(tmp_path: Path) -> None:
    _unequal_shares(0, 1, tmp_path)
    run_workers(2, _unequal_shares, tmp_path)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert one == pytest.approx(two, rel=1e-6)


def test_accuracy_series_by_hand() -> None:
    """Table I's Ens: right where any student is; not the accuracy of the averaged logits."""
    members, common = ["student1", "student2", "leader"], ["student1", "student2"]
    meter = AccuracyMeter(members, common, 3, torch.device("cpu"), confusion=True)
    labels = torch.tensor([0, 1, 2, 0])
    first = torch.tensor([[3.0, 0, 0], [0, 1, 0], [9, 0, 1], [0, 9, 0]])  # right: 0, 1
    second = torch.tensor([[2.0, 0, 0], [5, 0, 0], [0, 0, 1], [0, 9, 0]])  # right: 0, 2
    meter.update({"student1": first, "student2": second, "leader": second}, labels)
    row = meter.read("test")
    assert row["test/student1/top1"] == 50
    assert row["test/students_mean/top1"] == 50
    assert row["test/ensemble_any/top1"] == 75
    assert row["test/ensemble_logits/top1"] == 25
    assert row["test/leader/top1"] == 50
    expected = torch.nn.functional.cross_entropy(first, labels).item()
    assert row["test/student1/loss"] == pytest.approx(expected)
    assert not any(key.endswith("top5") for key in row)
    confusion = meter.confusion()
    assert list(confusion) == members
    assert confusion["student1"].tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion["leader"].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert not AccuracyMeter(members, common, 101, torch.device("cpu"), confusion=True).confusion()


def test_top5_from_twenty_classes_on() -> None:
    meter = AccuracyMeter(["student"], [], 20, torch.device("cpu"))
    meter.update({"student": torch.arange(20.0).repeat(3, 1)}, torch.tensor([19, 15, 14]))
    row = meter.read("test")
    assert row["test/student/top1"] == pytest.approx(100 / 3)
    assert row["test/student/top5"] == pytest.approx(200 / 3)


def test_diverged_term_is_named(tmp_path: Path) -> None:
    spec = digits_spec({"name": "ffsd"}, lr=1e12, epochs=2, steps_per_epoch=8)
    with pytest.raises(TrialError, match=r"the loss term \w+ of \w+ is not finite \(epoch 1, step [2-8]\)"):
        train_with(spec, tmp_path)


def test_first_bad_step_is_named() -> None:
    meter = TermMeter(torch.device("cpu"))
    for step, kl in enumerate([1.0, 2.0, float("nan"), float("nan")]):
        ce = float("inf") if step == 3 else 1.0
        meter.update({"leader/ce": torch.tensor(ce), "leader/kl": torch.tensor(kl)}, step, 4)
    with pytest.raises(TrialError, match=r"term kl of leader is not finite \(epoch 7, step 3\)"):
        meter.read(7)


@pytest.mark.parametrize("name", often(["baseline", "ffsd"], METHODS, others="slow"))
def test_every_method(name: str) -> None:
    """Shapes, finite terms that fall on a batch seen again and again, roles that cover all that is trained."""
    spec = digits_spec({"name": name}, lr=0.1)
    dataset = data.load(spec.data)
    method: Method = build_method(spec, dataset.num_classes, dataset.image_size)
    parameters = {id(p) for nets in method.roles().values() for net in nets for p in net.parameters()}
    assert parameters == {id(p) for p in method.parameters() if p.requires_grad}
    step = Step(method, optimisers.build(method, spec.train))
    batches = TrainBatches(
        dataset.train, dataset.mean, dataset.std, crop_padding=0, flip=False, batch_size=64, seed=0, views=method.views
    )
    batch = next(batches.epoch(1))
    method.begin_epoch(100)
    totals, entropies = [], []
    for _ in range(12):
        losses = step(batch)
        assert list(losses.logits) == method.members
        assert not any(tensor.requires_grad for results in losses for tensor in results.values()), (
            "a graph that is kept"
        )
        assert all(term.ndim == 0 and term.isfinite() for term in losses.terms.values())
        totals.append(sum(term.item() for term in losses.terms.values()))
        entropies.append(sum(term.item() for name, term in losses.terms.items() if name.endswith("/ce")))
    assert totals[-1] < totals[0]
    # an untrained teacher has other things to teach than the labels
    if any(entropies) and not method.settings.teachers:
        assert entropies[-1] < 0.5 * entropies[0]
    method.eval()
    with torch.inference_mode():
        logits = method.predict(batch.views[0])
    assert list(logits) == method.members
    assert all(z.shape == (64, 10) for z in logits.values())
    assert method.deployed[0] in method.members


@pytest.mark.parametrize("name", often(["ffsd", "okddip"], METHODS, others="slow"))
def test_bfloat16(name: str) -> None:
    """Networks in bfloat16, losses in float32 and near those of full precision."""
    terms = {}
    for precision in ("fp32", "bf16"):
        spec = digits_spec({"name": name}, precision=precision)
        method = build_method(spec, 10, 12)
        method.begin_epoch(5)
        torch.manual_seed(0)
        batch = Batch([torch.randn(16, 3, 12, 12)] * method.views, torch.arange(16) % 10, 1.0)
        terms[precision] = Step(method, optimisers.build(method, spec.train))(batch).terms
        assert all(term.dtype == torch.float32 for term in terms[precision].values())
        assert all(p.dtype == torch.float32 for p in method.parameters())
    for key, value in terms["bf16"].items():
        assert value.item() == pytest.approx(terms["fp32"][key].item(), rel=0.1, abs=1e-3), key
    assert any(value.item() != terms["fp32"][key].item() for key, value in terms["bf16"].items())


def test_learning_rate() -> None:
    settings = digits_spec({"name": "baseline"}, epochs=10, milestones=[4, 8], warmup_epochs=2).train
    factors = [optimisers.learning_rate_factor(settings, epoch, step, 5) for epoch in range(1, 11) for step in range(5)]
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert factors[10:20] == [1] * 10
    assert factors[20:40] == pytest.approx([0.1] * 20)
    assert factors[40:] == pytest.approx([0.01] * 10)


def test_warmup_as_the_published_code_has_it_on_imagenet() -> None:
    """There: lr · (1 + step + epoch · steps) / (5 · steps), epochs from 1, and no warm-up after the fourth."""
    settings = digits_spec({"name": "baseline"}, epochs=10, warmup_epochs=4, warmup_from=0.2).train
    places = [(epoch, step) for epoch in range(1, 5) for step in range(5)]
    factors = [optimisers.learning_rate_factor(settings, epoch, step, 5) for epoch, step in places]
    assert factors == pytest.approx([(1 + step + epoch * 5) / 25 for epoch, step in places])
    assert optimisers.learning_rate_factor(settings, 5, 0, 5) == 1
    with pytest.raises(ValueError, match="no warm-up"):
        digits_spec({"name": "baseline"}, warmup_from=0.2)


def test_optimisers_as_published() -> None:
    method = build_method(digits_spec({"name": "ffsd"}), 10, 12)
    built = optimisers.build(method, digits_spec({"name": "ffsd"}).train).by_name
    decays = [group["weight_decay"] for group in built["sgd"].param_groups]
    assert decays == [1e-4, 1e-5]
    assert built["sgd"].defaults["nesterov"]
    assert built["adam"].param_groups[0]["lr"] == 1e-3
    assert built["adam"].param_groups[0]["weight_decay"] == 1e-4


def test_best_epoch_is_chosen_on_the_validation_images(tmp_path: Path) -> None:
    spec = digits_spec({"name": "dml"}, epochs=5, data={"validation": 0.2}, steps_per_epoch=6)
    records = train_with(spec, tmp_path)
    rows, result = records.history(), records.result()
    assert result["selection"] == "val"
    for series, best in result["best"].items():
        values = [row[f"val/{series}/top1"] for row in rows]
        assert best["epoch"] == values.index(max(values)) + 1
        assert best["top1"] == rows[int(best["epoch"]) - 1][f"test/{series}/top1"]


def test_confusion_is_of_the_deployed_network_after_the_last_epoch(tmp_path: Path) -> None:
    """Of several students the best; also where the trial was stopped after that epoch, and is not evaluated again."""
    spec = digits_spec({"name": "dml"}, epochs=2, data={"validation": 0.2}, steps_per_epoch=4)
    train_with(spec, tmp_path, stop_after=2)
    result = train_with(spec, tmp_path).result()
    found = confusion_of(result["confusion"])
    test = data.load(spec.data).test
    assert list(result["confusion"]) == [str(digit) for digit in range(10)]
    assert found.sum(axis=1).tolist() == [6] * 10
    assert 100 * found.trace() / len(test) == pytest.approx(result["last"][f"test/{result['deployed']}/top1"])
    model = load_model(str(tmp_path / MODEL_LAST))
    again = evaluate(model, spec, test, "test")
    places = again.labels * 10 + again.logits.argmax(dim=1)
    assert torch.bincount(places, minlength=100).view(10, 10).tolist() == found.tolist()


def test_exported_weights_are_the_backbone_alone(tmp_path: Path) -> None:
    records = train_with(digits_spec({"name": "ffsd"}, epochs=1), tmp_path)
    weights = load_file(tmp_path / "model_last.safetensors")
    parameters = sum(w.numel() for name, w in weights.items() if "running" not in name and "tracked" not in name)
    assert parameters == records.result()["parameters"]["deployed"] == 78042


@pytest.mark.thorough
def test_local_jobs_never_import_ray(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: alone\ncontext: local\ndata: {name: digits, image_size: 12}\nbackbone: {name: resnet20}\n"
        "method: {name: ffsd}\ntrain: {epochs: 1, batch_size: 32, steps_per_epoch: 2}\n"
    )
    program = (
        "import sys; from ffsd_ray.run import main\n"
        f"status = main([{str(job)!r}, '--storage', {str(tmp_path / 'runs')!r}])\n"
        "assert status == 0, status\nassert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Leader" in done.stdout


def _trained(row: dict[str, float]) -> dict[str, float]:
    """What an epoch's training has measured, without evaluation."""
    return {key: value for key, value in row.items() if not key.startswith(("test/", "val/"))}


EVALUATED = [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 100, [3])]


@pytest.mark.parametrize(("epochs", "every", "evaluated"), often(EVALUATED[2:], EVALUATED))
def test_evaluates_every_so_many_epochs_and_after_the_last(
    epochs: int, every: int, evaluated: list[int], tmp_path: Path
) -> None:
    """Training is the same, evaluated or not; the best epoch is one that was evaluated."""
    always, now_and_then = (
        train_with(
            digits_spec({"name": "dml"}, epochs=epochs, evaluate_every=n, data={"validation": 0.2}),
            tmp_path / str(n),
        )
        for n in (1, every)
    )
    rows, all_rows = measured(now_and_then.history()), measured(always.history())
    assert [row["epoch"] for row in rows if "test/student1/top1" in row] == evaluated
    assert [row["epoch"] for row in rows if "val/student1/loss" in row] == evaluated
    assert [_trained(row) for row in rows] == [_trained(row) for row in all_rows]
    assert [rows[epoch - 1] for epoch in evaluated] == [all_rows[epoch - 1] for epoch in evaluated]
    result = now_and_then.result()
    assert result["last"]["epoch"] == epochs
    for series, best in result["best"].items():
        values = {epoch: rows[epoch - 1][f"val/{series}/top1"] for epoch in evaluated}
        assert best["epoch"] == max(values, key=lambda epoch: values[epoch])
        assert best["top1"] == rows[int(best["epoch"]) - 1][f"test/{series}/top1"]
    weights = [load_file(tmp_path / str(n) / "model_last.safetensors") for n in (1, every)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_a_method_learns_from_held_out_images_does_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    """KDCL's weights are fitted on them after every epoch."""
    method = {"name": "kdcl", "target": "general"}
    histories = [
        train_with(digits_spec(method, epochs=3, evaluate_every=every), tmp_path / str(every)).history()
        for every in (1, 3)
    ]
    always, seldom = ([_trained(row) for row in measured(rows)] for rows in histories)
    assert always == seldom


@pytest.mark.parametrize("stop_after", often([], [1, 2]))
def test_resumed_between_two_evaluations(stop_after: int, tmp_path: Path) -> None:
    """Before the first one there is no best epoch yet, nor its weights."""
    spec = digits_spec({"name": "ffsd"}, epochs=4, evaluate_every=2, data={"validation": 0.2})
    whole = train_with(spec, tmp_path / "whole")
    stopped = train_with(spec, tmp_path / "stopped", stop_after=stop_after)
    state = stopped.checkpoints.latest()
    assert state is not None
    assert bool(state["progress"]["best"]) == bool(state["progress"]["best_weights"]) == (stop_after == 2)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))


def test_a_checkpoint_without_its_best_weights_is_refused(tmp_path: Path) -> None:
    """Where an earlier epoch was evaluated, they must be there, whether the last one was or not."""
    spec = digits_spec({"name": "baseline"}, epochs=4, evaluate_every=2)
    records = train_with(spec, tmp_path, stop_after=3)
    state = records.checkpoints.latest()
    assert state is not None
    for key in ("best", "best_weights"):
        damaged = state | {"progress": state["progress"] | {key: {}}}
        records.checkpoints.write(3, damaged, keep_earlier=False)
        with pytest.raises(DamagedRecords, match=rf"progress\.{key}"):
            records.checkpoints.latest()
