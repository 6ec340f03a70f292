"""The stream of training batches, literally compared, and the shares of evaluation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from ffsd_ray.data.batches import Batch, EvalBatches, TrainBatches, normalise
from ffsd_ray.data.resident import Images

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def numbered(count: int, size: int = 8) -> Images:
    """Images of noise, all different under any crop and flip, each labelled with its own index."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count))


def batches(images: Images, **settings: Any) -> TrainBatches:
    return TrainBatches(images, MEAN, STD, **{"crop_padding": 2, "flip": True, "batch_size": 64, "seed": 3, **settings})


def together(shares: tuple[Batch, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The global batch's views [V, B, 3, S, S] and labels [B] from its shares, and each image's factor in the loss."""
    counted = [share for share in shares if share.weight]
    views = torch.cat([torch.stack(share.views) for share in counted], dim=1)
    factors = [
        torch.full((len(share.labels),), share.weight / len(share.labels) / len(shares), dtype=torch.float64)
        for share in counted
    ]
    return views, torch.cat([share.labels for share in counted]), torch.cat(factors)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_any_number_of_workers_sees_the_same_stream(world_size: int) -> None:
    images = numbered(130)  # the last global batch holds 2 images: fewer than 3 workers
    alone = list(batches(images, views=2).epoch(4))
    ranks = [batches(images, views=2, rank=rank, world_size=world_size).epoch(4) for rank in range(world_size)]
    shared = list(zip(*ranks, strict=True))
    assert len(alone) == len(shared) == 3
    for whole, shares in zip(alone, shared, strict=True):
        views, labels, factors = together(shares)
        assert torch.equal(views, torch.stack(whole.views))
        assert torch.equal(labels, whole.labels)
        assert whole.weight == 1
        assert torch.allclose(factors, torch.tensor(1 / len(labels), dtype=torch.float64), rtol=1e-12)


def test_a_worker_without_a_share_takes_part_without_counting() -> None:
    last = list(batches(numbered(130), rank=2, world_size=3).epoch(1))[-1]
    assert last.weight == 0
    assert last.views[0].shape == (1, 3, 8, 8)


def test_the_mean_over_ranks_of_weighted_losses_is_the_global_mean() -> None:
    images = numbered(131)
    losses = torch.rand(131, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ranks = [batches(images, rank=rank, world_size=4).epoch(1) for rank in range(4)]
    for whole, *shares in zip(batches(images).epoch(1), *ranks, strict=True):
        mean = sum(share.weight * losses[share.labels].mean() for share in shares) / 4
        assert float(mean) == pytest.approx(float(losses[whole.labels].mean()), rel=1e-12)


def test_an_epoch_entered_in_the_middle_goes_on_with_the_same_stream() -> None:
    images = numbered(300)
    whole = list(batches(images).epoch(2))
    rest = list(batches(images).epoch(2, first_step=3))
    assert len(rest) == len(whole) - 3 == 2
    for expected, got in zip(whole[3:], rest, strict=True):
        assert torch.equal(expected.views[0], got.views[0])
        assert torch.equal(expected.labels, got.labels)
    assert list(batches(images).epoch(2, first_step=5)) == []


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    images = numbered(130)
    stream = batches(images)
    assert stream.steps == 3
    orders = [torch.cat([batch.labels for batch in stream.epoch(epoch)]) for epoch in (1, 2, 1)]
    other_seed = torch.cat([batch.labels for batch in batches(images, seed=4).epoch(1)])
    for order in (*orders, other_seed):
        assert torch.equal(order.sort().values, images.labels)
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], other_seed)
    assert [len(batch.labels) for batch in stream.epoch(1)] == [64, 64, 2]


def test_an_epoch_can_be_cut_short_but_not_lengthened() -> None:
    images = numbered(130)
    cut = batches(images, steps_per_epoch=2)
    assert cut.steps == 2
    assert torch.equal(
        torch.cat([batch.labels for batch in cut.epoch(1)]),
        torch.cat([batch.labels for batch in batches(images).epoch(1)])[:128],
    )
    assert batches(images, steps_per_epoch=9).steps == 3


def test_the_stream_leaves_torchs_own_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(batches(numbered(70)).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def augmentations(images: Images, stream: TrainBatches, padding: int, epoch: int) -> Tensor:
    """Which crop of its image each view of each sample is, by sample index: int64 [V, N].

    The crops are literally torch's: reflect padding, a crop at each offset, and each of these mirrored.
    """
    order = torch.cat([batch.labels for batch in stream.epoch(epoch)]).argsort()
    views = torch.cat([torch.stack(batch.views) for batch in stream.epoch(epoch)], dim=1)[:, order]
    size, offsets = images.images.shape[-1], range(2 * padding + 1)
    padded = F.pad(images.images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    crops = [padded[:, :, row : row + size, column : column + size] for row in offsets for column in offsets]
    found = torch.full(views.shape[:2], -1)
    for number, crop in enumerate(crops + [crop.flip(-1) for crop in crops]):
        found[(views == normalise(crop, MEAN, STD)).flatten(2).all(2)] = number
    assert bool((found >= 0).all()), "a view is none of the crops of its image"
    return found


@pytest.mark.parametrize(("padding", "size"), [(4, 32), (7, 8), (1, 9)])
def test_crops_are_torchs_reflect_padding_cropped_and_flipped(padding: int, size: int) -> None:
    images = numbered(40, size)
    found = augmentations(images, batches(images, crop_padding=padding), padding, epoch=1)
    assert found.unique().numel() > 10


def test_without_crop_and_flip_images_are_only_normalised() -> None:
    images = numbered(40)
    for batch in batches(images, crop_padding=0, flip=False, views=2).epoch(1):
        for view in batch.views:
            assert torch.equal(view, normalise(images.images[batch.labels], MEAN, STD))


def test_without_flip_no_crop_is_mirrored() -> None:
    images = numbered(200)
    found = augmentations(images, batches(images, flip=False), 2, epoch=1)
    assert int(found.max()) < 25
    assert torch.equal(found % 25, augmentations(images, batches(images), 2, epoch=1) % 25)


def assert_uniform(drawn: Tensor, cells: int) -> None:
    """Chi-square within 6 standard deviations of its mean."""
    expected = drawn.numel() / cells
    statistic = float(((drawn.bincount(minlength=cells) - expected) ** 2 / expected).sum())
    assert statistic < cells - 1 + 6 * (2 * (cells - 1)) ** 0.5


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    images = numbered(3000)
    stream = batches(images, views=2)
    first, second = augmentations(images, stream, 2, epoch=1)
    next_epoch = augmentations(images, stream, 2, epoch=2)[0]
    for drawn in (first, second, next_epoch):
        assert_uniform(drawn, 50)
        assert_uniform(drawn // 25, 2)
        assert_uniform(drawn % 25 // 5, 5)
        assert_uniform(drawn % 5, 5)
    # views, epochs and neighbouring samples know nothing of each other: all pairs are as likely
    for a, b in ((first, second), (first, next_epoch), (first[1:], first[:-1])):
        assert_uniform(a % 25 // 5 * 5 + b % 25 // 5, 25)
        assert_uniform(a // 25 * 2 + b // 25, 4)
        assert float((a == b).double().mean()) < 0.04


def test_a_seed_changes_the_augmentation() -> None:
    images = numbered(200)
    one, other = (augmentations(images, batches(images, seed=seed), 2, epoch=1) for seed in (0, 1))
    assert float((one == other).double().mean()) < 0.1


@pytest.mark.parametrize("count", [10, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_shows_each_image_once(count: int, world_size: int) -> None:
    images = numbered(count)
    shares = [
        EvalBatches(images, MEAN, STD, batch_size=3, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    parts = [part for share in shares for part in share]
    assert all(1 <= len(labels) <= 3 for _, labels in parts)
    assert torch.equal(torch.cat([labels for _, labels in parts]), images.labels)
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), normalise(images.images, MEAN, STD))


def test_normalisation_is_torchvisions() -> None:
    images = numbered(20).images
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    torch.testing.assert_close(normalise(images, MEAN, STD), reference(images), rtol=1e-6, atol=1e-6)
    assert images.dtype == torch.uint8


def test_batches_never_read_the_device() -> None:
    """A tensor on the meta device has no values: whatever waited for one would raise."""
    stream = batches(numbered(130).to("meta"), views=2, rank=1, world_size=3)
    assert [batch.views[1].shape[0] for batch in stream.epoch(1)] == [21, 21, 1]


class _Divisors(TorchDispatchMode):
    """Collects what is divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[object] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name == "aten::div_":
            self.found.append(args[1])
        return func(*args, **(kwargs or {}))


def test_divisors_are_tensors_of_the_device() -> None:
    """CUDA multiplies by a number's reciprocal, which gives 126 of the 256 values of a byte another last bit."""
    with _Divisors() as divisors:
        normalise(torch.empty(2, 3, 4, 4, dtype=torch.uint8, device="meta"), MEAN, STD)
    assert [isinstance(divisor, torch.Tensor) and divisor.device.type for divisor in divisors.found] == ["meta"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_stream_of_the_cpu() -> None:
    images = numbered(1000, 32)
    for cpu, gpu in zip(batches(images).epoch(1), batches(images.to("cuda")).epoch(1), strict=True):
        assert torch.equal(cpu.labels, gpu.labels.cpu())
        assert torch.equal(cpu.views[0], gpu.views[0].cpu())
