"""Random bits as a function of what they are for, so that no generator's state has to be kept or shared."""

import torch
from torch import Tensor


def random_bits(values: Tensor, *parts: int) -> Tensor:
    """64 random bits for each of (value, *parts): int64 of `values`' shape, the same on every device.

    Chained finalisers of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), in
    wrapping int64 arithmetic.
    """
    bits = _mix(values)
    for part in parts:
        bits = _mix(bits + part)
    return bits


def uniforms(keys: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each of the keys (int64, themselves random bits): float64 [..., count]."""
    bits = _mix(keys[..., None] + torch.arange(count, device=keys.device))
    return shift(bits, 11).double() * 2**-53


def shift(bits: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own shifts the sign in."""
    return bits >> by & (1 << (64 - by)) - 1


def _mix(bits: Tensor) -> Tensor:
    bits = bits + -0x61C8864680B583EB  # 0x9E3779B97F4A7C15, signed
    bits = (bits ^ shift(bits, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    bits = (bits ^ shift(bits, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return bits ^ shift(bits, 31)
