"""A counter-based random number generator: random bits as a pure function of integers, without any state."""

import torch
from torch import Tensor


def random_bits(values: Tensor, *parts: int) -> Tensor:
    """64 random bits for each tuple (value, *parts): int64 of the shape of `values`, the same on every device.

    Chained finalisers of SplitMix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators, 2014), in
    wrapping int64 arithmetic.
    """
    bits = _splitmix64(values)
    for part in parts:
        bits = _splitmix64(bits + part)
    return bits


def uniforms(keys: Tensor, count: int) -> Tensor:
    """`count` uniform numbers in [0, 1) for each key, int64 [...] of random bits: float64 [..., count]."""
    bits = _splitmix64(keys[..., None] + torch.arange(count, device=keys.device))
    return shift_right(bits, 11).double() * 2**-53


def shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical right shift of int64 bits by 1 to 63 positions; torch's `>>` is arithmetic."""
    return bits >> by & (1 << (64 - by)) - 1


def _splitmix64(bits: Tensor) -> Tensor:
    """One step of SplitMix64 from the state `bits`."""
    bits = bits + -0x61C8864680B583EB  # 0x9E3779B97F4A7C15, signed
    bits = (bits ^ shift_right(bits, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    bits = (bits ^ shift_right(bits, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return bits ^ shift_right(bits, 31)
