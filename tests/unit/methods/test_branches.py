"""Branches of one trunk: each is the network that it would be alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray import data
from ffsd_ray.backbones import Features, backbone
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.nets.branches import Branches
from ffsd_ray.train.engine import Engine

from helpers.families import DIFFERENT
from helpers.forms import CLASSES, spec_of
from helpers.tiers import often

#: In the last two, the trunk reads parameters that no module holds that it calls.
BRANCHED = (*DIFFERENT, "torchvision:convnext_tiny", "torchvision:swin_t")
SIZES = dict.fromkeys(("vgg-16", "resnet18", "resnet34", *BRANCHED[-2:]), 32)


@pytest.mark.parametrize(
    "name",
    often(("resnet20", "vgg-16"), BRANCHED, others="slow"),
)
def test_a_branch_alone_is_the_branch_in_its_group(name: str) -> None:
    torch.manual_seed(0)
    size = SIZES.get(name, 16)
    networks = [backbone(name)(CLASSES) for _ in range(2)]
    group = Branches(networks)
    assert group.training
    images = torch.randn(8, 3, size, size)
    # A step moves the batch norms' statistics, too, of which a deployed branch has the same ones.
    sum(branch.logits.square().mean() for branch in group(images)).backward()
    assert [key for key, p in group.named_parameters() if p.grad is None] == [], "several workers would wait for them"
    torch.optim.SGD(group.parameters(), 1e-3).step()
    group.eval()
    with torch.no_grad():
        together = group(images)
        apart = [network(images) for network in group.networks]
    for branch, alone in zip(together, apart, strict=True):
        assert torch.equal(branch.logits, alone.logits)
        assert all(torch.equal(a, b) for a, b in zip(branch.maps, alone.maps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(together[0].maps[:-1], together[1].maps[:-1], strict=True))
    assert not torch.equal(together[0].logits, together[1].logits)
    whole = sum(p.numel() for p in backbone(name)(CLASSES).parameters())
    assert sum(p.numel() for p in networks[1].parameters()) == whole
    shared = {id(p) for p in networks[0].parameters()} & {id(p) for p in networks[1].parameters()}
    trunk = sum(p.numel() for p in networks[0].parameters() if id(p) in shared)
    assert 0 < trunk < whole
    assert sum(p.numel() for p in group.parameters()) == 2 * whole - trunk


class Dropping(nn.Module):
    """Two stages, the first with a dropout that asks for its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(2))

    def forward(self, images: Tensor) -> Features:
        early = self.first(F.dropout(images, 0.5, self.training))
        late = self.second(early)
        return Features(late.mean(dim=(2, 3)), [early, late])


def test_branches_follow_the_mode_and_later_layers() -> None:
    group, images = Branches([Dropping(), Dropping()]), torch.randn(2, 3, 8, 8)
    assert not torch.equal(group(images)[0].logits, group(images)[0].logits)
    group.eval()
    assert torch.equal(group(images)[0].logits, group(images)[0].logits)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(Branches([Dropping(), Dropping()]))
    called: list[nn.Module] = []
    for module in synchronised.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.register_forward_hook(lambda layer, *_: called.append(layer))
    synchronised(images)
    assert len(called) == 3, "the trunk's once, and each branch's own"


@pytest.mark.parametrize("form", ["one", "ffl", "okddip"])
def test_branches_share_their_batch_norms_where_they_are_synchronised(form: str) -> None:
    """Converted and moved, every branch has the trunk's statistics, not those that it began with."""
    plain = spec_of(form, epochs=1)
    spec = TrialSpec.model_validate(
        plain.model_dump()
        | {"train": plain.train.model_dump() | {"batch_norm": "sync"}, "scale": {"gpus_per_worker": 1, "threads": 1}}
    )
    engine = Engine(spec, data.load(spec.data), torch.device("cpu"))
    engine.begin(1)
    list(engine.epoch(1, engine.meters()))
    first, *others = engine.method.networks.values()
    assert isinstance(first.bn1, nn.SyncBatchNorm)
    mean = first.get_buffer("bn1.running_mean")
    assert mean.abs().max() > 0
    for other in others:
        assert other.bn1 is first.bn1
        assert torch.equal(other.get_buffer("bn1.running_mean"), mean)
    engine.method.eval()
    images = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        predicted = engine.method.predict(images)
        for name, network in engine.method.networks.items():
            torch.testing.assert_close(predicted[name], network(images).logits)


@pytest.mark.thorough
def test_branches_that_are_moved_again_stay_on_one_trunk() -> None:
    """After a first pass too, and constants that the trunk reads (Swin's positions) go along."""
    group = Branches([backbone("torchvision:swin_t")(CLASSES) for _ in range(2)]).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        group(images)
        moved = group.double()(images.double())
        for branch, network in zip(moved, group.networks, strict=True):
            assert torch.equal(branch.logits, network(images.double()).logits)
    one, two = ({id(b) for b in network.buffers()} for network in group.networks)
    assert one & two
