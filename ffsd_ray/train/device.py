"""The device of a process that trains."""

import ctypes
import gc
from collections.abc import Callable

import torch

from ffsd_ray.nets.precision import Precision

#: Parameters of glibc's `mallopt`, numbered as in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def use_device(device: torch.device, precision: Precision) -> None:
    """Prepare a process for computing on a device, in a precision."""
    if device.type == "cpu":
        _keep_freed_memory()
    if device.type != "cuda":
        return
    if device.index is not None:  # what is said of a GPU by its number raises until torch has started using it
        torch.cuda.set_device(device)
    use_precision(precision)
    torch.backends.cudnn.deterministic = True  # or a training in fp32 that is resumed differs from one that is not


def use_precision(precision: Precision) -> None:
    """Let a GPU's convolutions be in TF32 where the precision says so; matrix products never are."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def memory_format(device: torch.device, precision: Precision) -> torch.memory_format:
    """The layout of images, maps and weights in which a device's convolutions are the fastest.

    On small images that is channels last, on CPUs and GPUs alike, but for float32 without TF32 on a GPU: cuDNN has no
    such kernels, and turns every map around (38.2 ms a step in place of 26.8, three ResNet-32 on an H200).
    """
    plain = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last


def release_memory() -> None:
    """Give back what a trial that has ended held, images and weights first of all, to the next one and to others.

    Networks and executed steps refer to each other in cycles, which Python would collect at some later time. What is
    still there after a process's first trial, modules above all, is not searched again: that takes half a second.
    """
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()
    torch.cuda.empty_cache()  # nothing where no GPU is used
    if trim := _of_c_library("malloc_trim"):
        trim(0)


def _keep_freed_memory() -> None:
    """Have the C library keep a freed tensor's memory for the next tensor, until `release_memory`.

    By default glibc gives large pieces back to the system, which hands them out again page by page, filled with zeros:
    at every step, 4 to 8 % of its time.
    """
    if mallopt := _of_c_library("mallopt"):
        if not mallopt(_MMAP_THRESHOLD, 1 << 30):
            mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that versions before 2.35 take
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it is another than glibc and has no such function."""
    return getattr(ctypes.CDLL(None), name, None)
