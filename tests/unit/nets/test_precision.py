"""Networks in bfloat16: weights converted together give what autocast's own conversion of each gives."""

import pytest
import torch
from torch import Tensor, nn

from ffsd_ray.backbones import Features, backbone
from ffsd_ray.nets.branches import Branches
from ffsd_ray.nets.precision import forward


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "branches":  # two networks that share modules
        return Branches([backbone("resnet8")(10) for _ in range(2)])
    return backbone(kind)(10)


def logits(outputs: Features | list[Features]) -> Tensor:
    return torch.stack([out.logits.float() for out in (outputs if isinstance(outputs, list) else [outputs])])


@pytest.mark.parametrize("kind", ["resnet8", "wrn-16-2", "torchvision:efficientnet_b0", "branches"])
def test_bits_are_those_of_autocast(kind: str) -> None:
    found = {}
    for ours in (True, False):
        net = network(kind).to(memory_format=torch.channels_last)
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        before = {name: value.data_ptr() for name, value in net.named_parameters()}
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        if ours:
            outputs = forward(net, x, "bf16")
        else:
            with torch.autocast("cpu", torch.bfloat16):
                outputs = net(x)
        logits(outputs).square().mean().backward()
        assert {name: value.data_ptr() for name, value in net.named_parameters()} == before, "its own weights again"
        assert all(value.dtype == torch.float32 for value in net.parameters())
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        found[ours] = [logits(outputs), *gradients, *net.buffers()]
    for mine, theirs in zip(found[True], found[False], strict=True):
        assert torch.equal(mine, theirs)


def test_weights_that_take_no_part_have_no_gradient() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            used: Tensor = self.used(x)
            return used

    net = Unused()
    forward(net, torch.ones(1, 3), "bf16").float().sum().backward()
    assert net.used.weight.grad is not None
    assert net.unused.weight.grad is None
