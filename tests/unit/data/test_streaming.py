"""Images decoded while training: the stream, literally compared, its errors, and a trial trained on it."""

import gc
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize, resized_crop

from ffsd_ray import evaluate
from ffsd_ray.bench import loader
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, load
from ffsd_ray.data.batches import Batch, EvalBatches, TrainBatches, normalise
from ffsd_ray.data.counter_rng import random_bits, shift_right, uniforms
from ffsd_ray.data.streaming import ATTEMPTS, IMAGENET_MEAN, IMAGENET_STD, crop_box
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DataError

from helpers.commands import wait_for
from helpers.comparison import assert_equal, assert_same_end, latest_state
from helpers.images import data_settings
from helpers.specs import digits_spec
from helpers.tiers import often
from helpers.workers import train_with

SIZE = 16
TRAIN, TEST = 41, 11


def write_pictures(root: Path, *, train: int = TRAIN, test: int = TEST) -> Path:
    """Digits enlarged to pictures of many shapes, as PNG and JPEG, in class folders of two classes."""
    pixels = (load_digits().images * (255 / 16)).astype("uint8")
    for index in range(train + test):
        picture = Image.fromarray(pixels[index]).resize((20 + 3 * (index % 7), 20 + 5 * (index % 4))).convert("RGB")
        part = "train" if index < train else "test"
        file = root / part / ("even", "odd")[index % 2] / f"{index:03}.{('png', 'jpg')[index % 3 == 0]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def streamed(root: Path, **settings: Any) -> Dataset:
    defaults: dict[str, Any] = {"root": str(root), "image_size": SIZE, "stream": True, "loader_processes": 0}
    return load(data_settings("image_folder", **defaults | settings))


def batches(dataset: Dataset, **settings: Any) -> TrainBatches:
    defaults: dict[str, Any] = {"crop_padding": 4, "flip": True, "batch_size": 16, "seed": 3}
    return TrainBatches(dataset.train, dataset.mean, dataset.std, **defaults | settings)


def pictures(root: Path, part: str) -> list[Tensor]:
    """In the order of the labels' files."""
    files = sorted((root / part).rglob("*.*"))
    return [pil_to_tensor(Image.open(file).convert("RGB")) for file in files]


def assert_same_stream(some: list[Batch], others: list[Batch]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(torch.stack(one.views), torch.stack(other.views))
        assert torch.equal(one.labels, other.labels)
        assert one.weight == other.weight


# ---- the stream


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_workers_sees_the_same_stream(world_size: int, root: Path) -> None:
    alone = list(batches(streamed(root), views=2, batch_size=20).epoch(4))
    assert [len(batch.labels) for batch in alone] == [20, 20, 1]  # the last one: fewer images than workers
    ranks = [
        batches(streamed(root), views=2, batch_size=20, rank=rank, world_size=world_size).epoch(4)
        for rank in range(world_size)
    ]
    for whole, *shares in zip(alone, *ranks, strict=True):
        counted = [share for share in shares if share.weight]
        assert torch.equal(torch.cat([torch.stack(share.views) for share in counted], 1), torch.stack(whole.views))
        assert torch.equal(torch.cat([share.labels for share in counted]), whole.labels)
        parts = [len(part) for part in whole.labels.tensor_split(world_size)]
        assert [share.weight for share in shares] == [part * world_size / len(whole.labels) for part in parts]
        assert all(len(share.labels) == max(part, 1) for share, part in zip(shares, parts, strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("processes", often([2], [1, 2], others="slow"))
def test_any_number_of_processes_gives_the_same_stream(processes: int, root: Path) -> None:
    """They stay over epochs and evaluation, and end with the data set."""
    idle = children()
    here = batches(streamed(root), views=2)
    before = torch.get_rng_state()
    dataset = streamed(root, loader_processes=processes)
    there = batches(dataset, views=2)
    assert_same_stream(list(there.epoch(1)), list(here.epoch(1)))
    decoding = children() - idle
    assert len(decoding) >= processes
    assert_same_stream(list(there.epoch(2, first_step=1)), list(here.epoch(2))[1:])
    given_up = there.epoch(3)
    next(given_up)
    shown = torch.cat([labels for _, labels in EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=4)])
    assert torch.equal(shown, dataset.test.labels)
    assert_same_stream(list(there.epoch(3)), list(here.epoch(3)))
    with pytest.raises(AssertionError, match="another iteration"):
        next(given_up)
    assert children() - idle == decoding
    assert torch.equal(torch.get_rng_state(), before)
    del dataset, there, given_up
    gc.collect()
    assert len(children() - idle) <= 1  # multiprocessing's own resource tracker stays


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def test_an_epoch_entered_in_the_middle_or_cut_short(root: Path) -> None:
    whole = list(batches(streamed(root)).epoch(2))
    assert_same_stream(list(batches(streamed(root)).epoch(2, first_step=2)), whole[2:])
    assert_same_stream(list(batches(streamed(root), steps_per_epoch=2).epoch(2)), whole[:2])
    assert list(batches(streamed(root)).epoch(2, first_step=3)) == []


def test_the_resident_order_is_the_streams(root: Path, tmp_path: Path) -> None:
    """Both ways see the same images in the same order; an epoch holds each once."""
    resident = load(data_settings("image_folder", root=str(root), image_size=SIZE, cache=str(tmp_path)))
    for some, others in zip(batches(streamed(root)).epoch(1), batches(resident).epoch(1), strict=True):
        assert torch.equal(some.labels, others.labels)
    labels = torch.cat([batch.labels for batch in batches(streamed(root)).epoch(1)])
    assert Counter(labels.tolist()) == Counter(streamed(root).train.labels.tolist())


def test_crops_are_torchvisions(root: Path) -> None:
    """Every view is literally `resized_crop` of its file, mirrored or not, at the place that its key says."""
    dataset, stream = streamed(root), batches(streamed(root), views=2)
    found = list(stream.epoch(5))
    order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(int(random_bits(torch.tensor(3), 5))))
    assert torch.equal(torch.cat([batch.labels for batch in found]), dataset.train.labels[order])
    files, flips = pictures(root, "train"), []
    for view in range(2):
        keys = random_bits(order, 3, 5, view)
        shown = torch.cat([batch.views[view] for batch in found])
        for sample, key, got in zip(order.tolist(), keys, shown, strict=True):
            image = files[sample]
            box = crop_box(image.shape[1], image.shape[2], uniforms(key, 4 * ATTEMPTS).tolist())
            expected = resized_crop(image, *box, [SIZE, SIZE], antialias=True)
            flips.append(bool(shift_right(key, 63)))
            expected = expected.flip(-1) if flips[-1] else expected
            assert torch.equal(got, normalise(expected[None], IMAGENET_MEAN, IMAGENET_STD)[0])
    assert 0.3 < sum(flips) / len(flips) < 0.7
    upright = torch.cat([batch.views[0] for batch in batches(dataset, flip=False).epoch(5)])
    mirrored = torch.tensor(flips[:TRAIN])
    shown = torch.cat([batch.views[0] for batch in found])
    assert torch.equal(torch.where(mirrored[:, None, None, None], shown.flip(-1), shown), upright)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (64, 64), (40, 400), (9, 8), (1, 1)])
def test_crop_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Area, ratio, row and column of 4,000 boxes against 4,000 of RandomResizedCrop, by their deciles."""
    draws = uniforms(random_bits(torch.arange(4000), 1, 2, 3), 4 * ATTEMPTS)
    assert 0 <= float(draws.min()) < 0.001
    assert 0.999 < float(draws.max()) < 1
    ours = torch.tensor([crop_box(height, width, drawn) for drawn in draws.tolist()])
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(8), [torch.empty(3, height, width)]
    made = [transform.make_params(image) for _ in range(4000)]
    theirs = torch.tensor([[p[name] for name in ("top", "left", "height", "width")] for p in made])
    assert bool((ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all())
    assert bool((ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all())
    if min(height, width) >= 64:
        area, ratio = ours[:, 2] * ours[:, 3] / (height * width), ours[:, 3] / ours[:, 2]
        assert float(area.min()) == pytest.approx(0.08, rel=0.05)
        assert 0.9 < float(area.max()) <= 1.01
        assert float(ratio.min()) == pytest.approx(3 / 4, rel=0.05)
        assert float(ratio.max()) == pytest.approx(4 / 3, rel=0.05)
    for column in range(4):
        deciles = [
            boxes[:, column].double().quantile(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
            for boxes in (ours, theirs)
        ]
        assert float((deciles[0] - deciles[1]).abs().max()) <= max(1, 0.06 * max(height, width))


def test_epochs_views_and_samples_are_cut_differently(root: Path) -> None:
    stream = batches(streamed(root), views=2, batch_size=TRAIN)
    (first,), (again,), (second,) = (list(stream.epoch(epoch)) for epoch in (1, 1, 2))
    assert torch.equal(first.views[0], again.views[0])
    shown = torch.cat([*first.views, *second.views]).flatten(1)
    assert len(shown.unique(dim=0)) == 4 * TRAIN


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_shows_each_image_once(world_size: int, root: Path) -> None:
    dataset = streamed(root)
    scaled = round(SIZE * 256 / 224)
    literal = [center_crop(resize(image, [scaled], antialias=True), [SIZE, SIZE]) for image in pictures(root, "test")]
    shares = [
        EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        parts = [part for share in shares for part in share]
        assert all(1 <= len(labels) <= 4 for _, labels in parts)
        assert torch.equal(torch.cat([labels for _, labels in parts]), dataset.test.labels)
        expected = normalise(torch.stack(literal), IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(torch.cat([images for images, _ in parts]), expected)


def test_a_gpu_gets_bytes_that_are_the_cpus(root: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    dataset = streamed(root, loader_processes=1)
    stream = TrainBatches(
        dataset.train.to("cuda"), dataset.mean, dataset.std, crop_padding=0, flip=True, batch_size=4, seed=3, views=2
    )
    for _ in range(3):
        on_gpu = list(stream.epoch(1))
        for cpu, gpu in zip(batches(streamed(root), batch_size=4, views=2).epoch(1), on_gpu, strict=True):
            assert torch.equal(cpu.labels, gpu.labels.cpu())
            torch.testing.assert_close(torch.stack(cpu.views), torch.stack(gpu.views).cpu(), rtol=1e-6, atol=1e-6)


# ---- settings


def test_normalisation_is_imagenets_unless_said(root: Path, tmp_path: Path) -> None:
    assert (streamed(root).mean, streamed(root).std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert streamed(root, mean=[0.1, 0.2, 0.3]).mean == (0.1, 0.2, 0.3)
    own = streamed(root, stream=False, cache=str(tmp_path))
    said = streamed(root, stream=False, cache=str(tmp_path), std=[0.1, 0.2, 0.3])
    assert own.mean not in (IMAGENET_MEAN, (0.1, 0.2, 0.3))
    assert (said.mean, said.std) == (own.mean, (0.1, 0.2, 0.3))


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="A stream needs the size"):
        data_settings("parquet", train="a", test="b", stream=True)
    with pytest.raises(ValidationError, match="random crops have no padding; leave it out"):
        data_settings("image_folder", root="a", stream=True, crop_padding=2)
    with pytest.raises(ValidationError, match="std"):
        data_settings("image_folder", root="a", std=[0.1, 0, 0.1])


def test_a_validation_split_is_the_resident_ones(root: Path, tmp_path: Path) -> None:
    stream = streamed(root, validation=0.25)
    resident = streamed(root, stream=False, cache=str(tmp_path), validation=0.25)
    assert stream.val is not None
    assert resident.val is not None
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(stream, part).labels, getattr(resident, part).labels)
    shown = sum(len(labels) for _, labels in EvalBatches(stream.val, stream.mean, stream.std, batch_size=5))
    assert (len(stream.train), shown) == (30, 11)


# ---- Parquet


def write_parquet(root: Path, folder: Path) -> dict[str, str]:
    """The pictures as rows, with the classes' names."""
    for part in ("train", "test"):
        files = sorted((root / part).rglob("*.*"))
        table = pa.table(
            {
                "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
                "label": [("even", "odd").index(file.parent.name) for file in files],
            }
        )
        pq.write_table(table.replace_schema_metadata({"classes": "even,odd"}), folder / f"{part}.parquet")
    return {
        "train": str(folder / "train.parquet"),
        "test": str(folder / "test.parquet"),
        "cache": str(folder / "cache"),
    }


def test_parquet_streams_as_the_folder_does(root: Path, tmp_path: Path) -> None:
    files = write_parquet(root, tmp_path)

    def read() -> Dataset:
        return load(data_settings("parquet", **files, stream=True, image_size=SIZE, loader_processes=0))

    expected = list(batches(streamed(root)).epoch(1))
    assert_same_stream(list(batches(read()).epoch(1)), expected)
    (raw,) = (tmp_path / "cache").glob("*.raw")
    written = raw.stat().st_mtime_ns
    assert_same_stream(list(batches(read()).epoch(1)), expected)
    assert raw.stat().st_mtime_ns == written  # the images are copied once
    raw.write_bytes(raw.read_bytes()[:-1])
    assert_same_stream(list(batches(read()).epoch(1)), expected)
    raw.unlink()
    assert_same_stream(list(batches(read()).epoch(1)), expected)
    assert read().classes == ("even", "odd")
    assert not list((tmp_path / "cache").glob("*.tmp"))


# ---- errors


@pytest.mark.parametrize("processes", often([0], [0, 1], others="slow"))
def test_a_broken_image_is_named(processes: int, tmp_path: Path) -> None:
    dataset = streamed(write_pictures(tmp_path), loader_processes=processes)
    broken = tmp_path / "train" / "odd" / "007.png"
    broken.write_bytes(broken.read_bytes()[:60])
    stream = batches(dataset)
    with pytest.raises(DataError) as caught:
        list(stream.epoch(1))
    assert str(caught.value).startswith(f"{broken}: expected a whole picture (JPEG, PNG, WebP, ...): ")
    assert "Traceback" not in str(caught.value)
    broken.unlink()
    with pytest.raises(DataError, match=r"007.png: cannot be read: No such file"):
        list(stream.epoch(1))  # the processes are still there


def test_a_broken_row_is_named(root: Path, tmp_path: Path) -> None:
    files = write_parquet(root, tmp_path)
    rows = pq.read_table(files["train"]).to_pylist()
    rows[9]["image"]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), files["train"])
    dataset = load(data_settings("parquet", **files, stream=True, image_size=SIZE, loader_processes=0))
    with pytest.raises(DataError, match=r"train.parquet, row 9 \(from 0\): expected a whole picture"):
        list(batches(dataset).epoch(1))
    rows[5]["label"] = -1
    pq.write_table(pa.Table.from_pylist(rows), files["train"])
    with pytest.raises(DataError, match=r"train.parquet, row 5 \(from 0\): label is -1"):
        load(data_settings("parquet", **files, stream=True, image_size=SIZE))


# ---- the processes


TRAINING = """
import sys, time
from ffsd_ray.data import SOURCES, load
from ffsd_ray.data.batches import TrainBatches

data = load(SOURCES["image_folder"](root=sys.argv[1], image_size=16, stream=True, loader_processes=1))
stream = TrainBatches(data.train, data.mean, data.std, crop_padding=0, flip=True, batch_size=4, seed=0)
list(stream.epoch(1))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.thorough
def test_processes_end_when_training_is_killed(root: Path) -> None:
    training = subprocess.Popen([sys.executable, "-c", TRAINING, root], stdout=subprocess.PIPE, text=True)
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == "ready\n"
        decoding = psutil.Process(training.pid).children(recursive=True)
        assert decoding
    finally:
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
    wait_for(lambda: not any(process.is_running() for process in decoding), "the end of those that decode")


# ---- a trial


def stream_spec(root: Path, *, workers: int = 1, **data: object) -> TrialSpec:
    spec = digits_spec({"name": "ffsd"}, workers=workers, epochs=2, batch_size=8, steps_per_epoch=2).model_dump()
    settings = {"name": "image_folder", "root": str(root), "image_size": SIZE, "stream": True, "loader_processes": 0}
    return TrialSpec.model_validate(spec | {"data": settings | data})


@pytest.mark.parametrize("workers", often([1], [1, 2], others="slow"))
def test_a_trial_on_a_stream_resumed_is_never_stopped(workers: int, root: Path, tmp_path: Path) -> None:
    spec = stream_spec(root, workers=workers, validation=0.2)
    whole = train_with(spec, tmp_path / "whole")
    assert whole.state() == "completed"
    train_with(spec, tmp_path / "stopped", stop_after=1)
    assert_same_end(whole, train_with(spec, tmp_path / "stopped"))


@pytest.mark.slow
def test_a_trial_does_not_depend_on_its_decoding_processes(root: Path, tmp_path: Path) -> None:
    here, there = (stream_spec(root, loader_processes=processes) for processes in (0, 1))
    assert here.identity() == there.identity()
    one, other = (train_with(spec, tmp_path / name) for name, spec in (("here", here), ("there", there)))
    assert_equal(latest_state(one), latest_state(other))


def test_the_leader_of_a_stream(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is measured again to the same figure, and treats a picture as the stream does."""
    train_with(stream_spec(root), tmp_path)
    file = tmp_path / "model_last.safetensors"
    assert evaluate.main([str(file)]) == 0
    assert ": the same" in capsys.readouterr().out
    leader, dataset = load_model(file), streamed(root)
    (images, _), *_ = EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=TEST)
    for image, expected in zip(pictures(root, "test"), images, strict=True):
        assert torch.equal(leader.preprocess(image), expected)


# ---- real photographs, and the measurement


@pytest.mark.slow
def test_photographs(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JPEG files of Tiny ImageNet, cut to many shapes, decoded and timed."""
    images = pq.ParquetFile(shared / "data" / "tinyimagenet20-64" / "val.parquet").read_row_group(0).slice(0, 60)
    for index, row in enumerate(images.to_pylist()):
        picture = Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB")
        file = tmp_path / ("train", "val")[index % 3 == 0] / "ab"[index % 2] / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.crop((0, 0, 64 - index % 5, 64 - 3 * (index % 7))).save(file)
    section = f"{{name: image_folder, root: {tmp_path}, stream: true, image_size: 32}}"
    assert loader.main(["--data", section, "--processes", "0", "1", "--seconds", "0.1", "--batch-size", "8"]) == 0
    assert "images a CPU second" in capsys.readouterr().out
    assert loader.main(["--data", "{name: digits}"]) == 2
    assert "only those stream" in capsys.readouterr().err
