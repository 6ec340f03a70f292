"""The network a user takes home: its file, and the commands that use it."""

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save_file
from torch import nn

import ffsd_ray
from ffsd_ray import classify, evaluate, export
from ffsd_ray.backbones import BACKBONES
from ffsd_ray.card import Card
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.data import load as load_data
from ffsd_ray.data.batches import normalise
from ffsd_ray.data.picture import decode
from ffsd_ray.deployed import load_model, pack
from ffsd_ray.errors import RecordsError

from helpers.images import images_of
from helpers.tiers import often

DIGITS = {
    "data": {"name": "digits"},
    "backbone": {"name": "resnet20"},
    "method": {"name": "ffsd"},
    "train": {"epochs": 3, "batch_size": 64},
}


def card_of(spec: TrialSpec, dataset: Dataset, top1: float) -> Card:
    about = (dataset.classes, dataset.mean, dataset.std, dataset.image_size)
    return Card("resnet20", *about, spec.train.precision, "leader", 3, "test", top1, spec.model_dump(), spec.identity())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data(TrialSpec.model_validate(DIGITS).data)


@pytest.fixture(scope="module")
def network(digits: Dataset) -> nn.Module:
    """A resnet20 with random convolutions whose last layer was fitted to the digits."""
    torch.manual_seed(0)
    net = BACKBONES["resnet20"](10)
    inputs, labels = normalise(images_of(digits.train), digits.mean, digits.std), digits.train.labels
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # statistics of these images alone
    with torch.no_grad():
        net(inputs)
        last = net.eval()(inputs).maps[-1].mean(dim=(2, 3))
        fitted = torch.linalg.lstsq(nn.functional.pad(last, (0, 1), value=1.0), nn.functional.one_hot(labels).float())
        net.get_parameter("fc.weight").copy_(fitted.solution[:-1].T)
        net.get_parameter("fc.bias").copy_(fitted.solution[-1])
    return net


def count_right(network: nn.Module, dataset: Dataset) -> int:
    """Of the test images, in one batch."""
    with torch.inference_mode():
        logits = network(normalise(images_of(dataset.test), dataset.mean, dataset.std)).logits
    return int((logits.argmax(dim=1) == dataset.test.labels).sum())


@pytest.fixture
def file(tmp_path: Path, digits: Dataset, network: nn.Module) -> Path:
    """The trained digits network, with its accuracy as recorded."""
    path = tmp_path / "model_best.safetensors"
    top1 = 100 * (count_right(network, digits) / len(digits.test))
    path.write_bytes(pack(network.state_dict(), card_of(TrialSpec.model_validate(DIGITS), digits, top1)))
    return path


def test_a_file_holds_the_backbone_and_its_card(tmp_path: Path, digits: Dataset) -> None:
    card = replace(
        card_of(TrialSpec.model_validate(DIGITS), digits, 71.25), classes=tuple(f"Ü {index}" for index in range(100))
    )
    net = BACKBONES["resnet20"](100).to(memory_format=torch.channels_last).eval()  # as the trainer has it
    path = tmp_path / "leader.safetensors"
    path.write_bytes(pack(net.state_dict(), card))
    loaded = ffsd_ray.load_model(path)
    assert loaded.card == card
    assert loaded.classes[3] == "Ü 3"
    assert not loaded.training
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 278_324
    stored = load(path.read_bytes())
    assert sum(stored[name].numel() for name, _ in net.named_parameters()) == 278_324
    assert stored.keys() == net.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in net.state_dict().items())


def test_the_loaded_network_computes_the_same_bit_for_bit(file: Path, network: nn.Module) -> None:
    images = torch.randn(5, 3, 16, 16)
    before = torch.random.get_rng_state()
    leader = load_model(file)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(leader(images), network(images).logits)
    assert torch.is_grad_enabled()
    assert leader(images).requires_grad  # it can be trained on


def test_equal_networks_make_equal_files(network: nn.Module, digits: Dataset) -> None:
    card = card_of(TrialSpec.model_validate(DIGITS), digits, 50.0)
    assert pack(network.state_dict(), card) == pack(network.state_dict(), card)


def test_what_is_not_such_a_file_is_refused(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(RecordsError, match=r"missing\.safetensors"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(RecordsError, match="expected a safetensors file"):
        load_model(tmp_path)
    for damaged in (b"", b"PK\x03\x04" + bytes(100), content[: len(content) // 2], content[:100]):
        bad.write_bytes(damaged)
        with pytest.raises(RecordsError, match=r"bad\.safetensors: expected a safetensors file"):
            load_model(bad)
    save_file({"a": torch.zeros(2)}, bad)
    with pytest.raises(RecordsError, match="no `card`"):
        load_model(bad)
    save_file({"a": torch.zeros(2)}, bad, {"card": '{"backbone": "resnet20"}'})
    with pytest.raises(RecordsError, match="its card is damaged"):
        load_model(bad)
    with safe_open(file, "pt") as sound:
        tensors, metadata = {name: sound.get_tensor(name) for name in sound.keys()}, sound.metadata()  # noqa: SIM118
    save_file(tensors, bad, {"card": metadata["card"].replace("sha256", "md5")})
    with pytest.raises(RecordsError, match=r"bad\.safetensors: expected a stamp in it"):
        load_model(bad)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backbone": "resnet32"}, "expected resnet32 for 10 classes"),
        ({"backbone": "resnet18000"}, "unknown backbone resnet18000"),
        ({"classes": ("only", "two")}, "expected resnet20 for 2 classes"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, network: nn.Module, digits: Dataset, change: dict[str, Any], expected: str
) -> None:
    card = replace(card_of(TrialSpec.model_validate(DIGITS), digits, 50.0), **change)
    path = tmp_path / "leader.safetensors"
    path.write_bytes(pack(network.state_dict(), card))
    with pytest.raises(RecordsError, match=expected):
        load_model(path)


def test_preprocess_does_as_the_data_sources(file: Path, tmp_path: Path) -> None:
    leader = load_model(file)
    picture = Image.effect_mandelbrot((61, 40), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    content = io.BytesIO()
    picture.save(content, "png")
    expected = normalise(decode(content.getvalue(), 16)[None], leader.card.mean, leader.card.std)[0]
    assert torch.equal(leader.preprocess(picture), expected)
    assert torch.equal(leader.preprocess(decode(content.getvalue(), None)), expected)
    assert leader.preprocess(picture.convert("L")).shape == (3, 16, 16)
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    torch.testing.assert_close(leader.preprocess(deep), leader.preprocess(grey), rtol=0, atol=0.02)
    seen = leader.preprocess(Image.new("RGBA", (20, 20)))
    assert torch.equal(seen, leader.preprocess(Image.new("RGB", (20, 20), "white")))
    (tmp_path / "cut.png").write_bytes(content.getvalue()[:-40])
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(ValueError, match="cannot be decoded"):
        leader.preprocess(cut)
    with pytest.raises(ValueError, match=r"uint8 pixels \[3, H, W\]"):
        leader.preprocess(torch.zeros(3, 16, 16))


def test_evaluate_reproduces_the_recorded_accuracy(
    file: Path, network: nn.Module, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    right = count_right(network, digits)
    assert 36 < right < 360  # better than chance and worse than perfect, or this would show little
    assert evaluate.main([str(file)]) == 0
    shown = capsys.readouterr().out
    assert f"top-1 {100 * right / 360:.2f} % of 360 test images (leader, epoch 3)" in shown
    assert ": the same\n" in shown


WORKERS, PRECISION = {"scale": {"workers": 2}}, {"train": {"precision": "bf16", "eval_batch_size": 7}}


@pytest.mark.parametrize("changes", often([WORKERS], [WORKERS, PRECISION]))
def test_evaluate_does_as_the_trial_did(
    digits: Dataset, network: nn.Module, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Two workers' shares, small batches, bfloat16."""
    spec = TrialSpec.model_validate(DIGITS | changes)
    path = tmp_path / "leader.safetensors"
    path.write_bytes(pack(network.state_dict(), card_of(spec, digits, 0.0)))
    row = evaluate.evaluate(load_model(path), spec, digits.test, "test").row
    inputs = normalise(images_of(digits.test), digits.mean, digits.std)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=spec.train.precision == "bf16"):
        logits = network(inputs).logits.float()
    right = (logits.argmax(dim=1) == digits.test.labels).double()
    assert row["test/leader/top1"] == pytest.approx(
        100 * right.mean().item(), abs=0.3
    )  # one image: ties may fall otherwise
    assert row["test/leader/loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, digits.test.labels).item(), rel=2e-3
    )


def test_evaluate_says_where_it_differs(
    file: Path, network: nn.Module, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(pack(network.state_dict(), replace(load_model(file).card, top1=99.5)))
    assert evaluate.main([str(file)]) == 0
    assert "recorded: 99.50 %: differs by -" in capsys.readouterr().out


def test_evaluate_on_other_images(
    file: Path, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(file), "--split", "train", "--mistakes", str(tmp_path / "wrong.png")]) == 0
    assert (tmp_path / "wrong.png").exists()
    assert "1437 train images" in (shown := capsys.readouterr().out)
    assert "nothing to compare with" in shown
    # The test digits as files, and one picture to train on, which is not looked at.
    for index, (image, label) in enumerate(zip(images_of(digits.test), digits.test.labels.tolist(), strict=True)):
        for part in ("train", "test") if index < 40 else ("test",):
            folder = tmp_path / "pictures" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    changes = ["name=image_folder", f"root={tmp_path / 'pictures'}", f"cache={tmp_path / 'cache'}"]
    other = [part for change in changes for part in ("--data", change)]
    assert evaluate.main([*other, "--data", "image_size=16", str(file)]) == 0
    assert ": the same" in capsys.readouterr().out  # with the network's own normalisation
    assert evaluate.main([str(file), *other, "--data", "image_size=24"]) == 2
    assert "expected images of 16×16 pixels; these have 24×24" in capsys.readouterr().err


def test_evaluate_on_a_folder_of_pictures(
    file: Path, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of some of the classes, each image of the test split a file: the same predictions, one by one."""
    expected = evaluate.evaluate(load_model(file), TrialSpec.model_validate(DIGITS), digits.test, "test")
    kept = [index for index, label in enumerate(expected.labels.tolist()) if label in (0, 3, 8)]
    for index in kept:
        folder = tmp_path / "pictures" / str(int(expected.labels[index]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images_of(digits.test)[index].permute(1, 2, 0).numpy()).save(folder / f"={index}.png")
    out = tmp_path / "predictions.csv"
    more = ["--predictions", str(out), "--mistakes", str(tmp_path / "wrong.png")]
    assert evaluate.main([str(file), "--images", str(tmp_path / "pictures"), *more]) == 0
    shown = capsys.readouterr().out
    right = (expected.logits.argmax(dim=1) == expected.labels)[kept].double().mean().item()
    assert f"top-1 {100 * right:.2f} % of {len(kept)} images in {tmp_path / 'pictures'}" in shown
    assert "balanced accuracy" in shown
    with out.open(newline="") as lines:
        rows = {int(Path(row["image"]).stem.removeprefix("=")): row for row in csv.DictReader(lines)}
    assert sorted(rows) == kept
    for index, row in rows.items():
        assert row["class"] == str(int(expected.labels[index]))
        assert row["predicted"] == str(int(expected.logits[index].argmax()))
        assert float(row["probability"]) == pytest.approx(expected.logits[index].softmax(0).max().item(), abs=1e-3)
    (tmp_path / "pictures" / "cat").mkdir()
    shutil.copy(next((tmp_path / "pictures" / "0").iterdir()), tmp_path / "pictures" / "cat" / "a.png")
    assert evaluate.main([str(file), "--images", str(tmp_path / "pictures")]) == 2
    assert "cat" in capsys.readouterr().err
    assert evaluate.main([str(file), "--images", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "image_size"], "KEY=VALUE"),
        (["--data", "image_size=large"], "data.image_size"),
        (["--data", "imagesize=16"], "Did you mean `image_size`"),
        (["--data", "name=digit"], "Did you mean `digits`"),
        (["--data", "name=image_folder", "--data", "root=/nowhere"], "/nowhere"),
        (["--split", "val"], "no validation images"),
    ],
)
def test_evaluate_refuses(file: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(file), *arguments]) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown


def test_evaluate_refuses_other_classes(file: Path, network: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    card = replace(load_model(file).card, classes=tuple("abcdefghij"))
    file.write_bytes(pack(network.state_dict(), card))
    assert evaluate.main([str(file)]) == 2
    assert "expected the classes a, b, c, d, e, … (10); these are 0, 1, 2, 3, 4, … (10)" in capsys.readouterr().err


@pytest.mark.thorough
def test_export_agrees_under_onnxruntime(file: Path, network: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "ffsd-ray[onnx]"')
    pytest.importorskip("onnxscript", reason='needs pip install "ffsd-ray[onnx]"')
    assert export.main([str(file), "--onnx"]) == 0
    out = file.with_suffix(".onnx")
    assert str(out) in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 9):
        images = torch.randn(batch, 3, 16, 16)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            assert (torch.from_numpy(found) - network(images).logits).abs().max() < 1e-5
    about = session.get_modelmeta().custom_metadata_map
    card = load_model(file).card
    assert json.loads(about["classes"]) == list("0123456789")
    assert json.loads(about["mean"]) == list(card.mean)
    assert json.loads(about["std"]) == list(card.std)
    assert about["image_size"] == "16"


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "ending"), [("torchscript", ".pt"), ("program", ".pt2")])
def test_exports_of_torch_load_without_this_package(form: str, ending: str, file: Path, network: nn.Module) -> None:
    assert export.main([str(file), "--format", form]) == 0
    torch.save(images := torch.randn(5, 3, 16, 16), file.with_suffix(".images"))
    load = {
        "torchscript": "m = torch.jit.load(p, _extra_files=e)",
        "program": "m = torch.export.load(p, extra_files=e).module()",
    }
    program = (
        "import sys, torch; p, i, o = sys.argv[1:]; e = {'classes': '', 'image_size': ''}; "
        f"{load[form]}; torch.save((m(torch.load(i)), e), o)"
    )
    arguments = [str(file.with_suffix(suffix)) for suffix in (ending, ".images", ".logits")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=file.parent)
    logits, about = torch.load(file.with_suffix(".logits"))
    with torch.inference_mode():
        torch.testing.assert_close(logits, network(images).logits, rtol=0, atol=1e-5)
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in about.items()}
    assert json.loads(texts["classes"]) == list("0123456789")
    assert texts["image_size"] == "16"


@pytest.mark.thorough
def test_export_says_which_extra_is_missing(file: Path) -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None; from ffsd_ray.export import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), "--onnx"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "ffsd-ray[onnx]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not file.with_suffix(".onnx").exists()


def test_classify_a_digit(
    file: Path, network: nn.Module, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.inference_mode():
        logits = network(normalise(images_of(digits.test), digits.mean, digits.std)).logits
    names, pictures = [], []
    for index in (0, 1):
        pictures.append(tmp_path / f"digit{index}.png")
        Image.fromarray(images_of(digits.test)[index].permute(1, 2, 0).numpy()).save(pictures[-1])
        best = logits[index].softmax(dim=0).topk(3)
        first, *others = [f"{i} {p:.1%}" for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        names.append(f"{first} {', '.join(others)}".split())
    assert classify.main([str(file), *map(str, pictures)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [[str(p), *n] for p, n in zip(pictures, names, strict=True)]


def test_classify_a_photograph(file: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pq.ParquetFile(shared / "data" / "tinyimagenet20-64" / "val.parquet")
    first = next(images.iter_batches(batch_size=1, columns=["img"])).column(0)[0].as_py()["bytes"]
    picture = tmp_path / "photograph.jpg"
    picture.write_bytes(first)
    assert classify.main([str(file), str(picture)]) == 0
    assert capsys.readouterr().out.count("%") == 3


def test_predict_pictures_however_they_are_given(
    file: Path, network: nn.Module, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opened, as pixels, by path, and all that are in a folder, more than are classified at once."""
    model, images = load_model(file), images_of(digits.test)[:105]
    with torch.inference_mode():
        indices = network(normalise(images, digits.mean, digits.std)).logits.argmax(dim=1).tolist()
    expected = [str(index) for index in indices]
    opened = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in images]
    (tmp_path / "below").mkdir()
    paths = [str(tmp_path / "below" / f"{number:03}.png") for number in range(len(opened))]
    for picture, path in zip(opened, paths, strict=True):
        picture.save(path)
    in_folder = model.predict(tmp_path / "below")
    assert [(found.picture, found.label) for found in in_folder] == list(zip(paths, expected, strict=True))
    assert [found.label for found in model.predict(opened)] == expected
    mixed = model.predict([opened[0], images[1], paths[2]])
    assert [(found.picture, found.label) for found in mixed] == list(
        zip(("0", "1", paths[2]), expected[:3], strict=True)
    )
    [alone] = model.predict(opened[4])
    assert (alone.picture, alone.label) == ("0", expected[4])
    assert sum(alone.probabilities.values()) == pytest.approx(1)
    assert next(iter(alone.probabilities.items())) == (alone.label, alone.probability)
    assert classify.main([str(file), str(tmp_path / "below")]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == expected
    (tmp_path / "empty").mkdir()
    assert classify.main([str(file), str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/empty: expected pictures, found nothing\n"


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), (b"no picture", "expected a whole picture")]
)
def test_classify_refuses_what_is_no_picture(
    file: Path, tmp_path: Path, content: bytes | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    if content is not None:
        picture.write_bytes(content)
    assert classify.main([str(file), str(picture)]) == 2
    assert f"{picture}: {expected}" in capsys.readouterr().err
