"""The device of a process that trains. What is for GPUs here has not been run on one."""

import gc

import torch


def use_device(device: torch.device) -> None:
    """Prepare a process for computing on a device; for CPUs there is nothing to prepare."""
    if device.type != "cuda":
        return
    if device.index is not None:  # what is said of a GPU by its number raises until torch has started using it
        torch.cuda.set_device(device)
    torch.backends.cudnn.allow_tf32 = False  # torch's default for convolutions; off for matrix products already


def release_memory() -> None:
    """Give back what a trial that has ended held, images and weights first of all, to the next one and to others.

    Networks and executed steps refer to each other in cycles, which Python would collect at some later time. What is
    still there after a process's first trial, modules above all, is not searched again: that takes half a second.
    """
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()
    torch.cuda.empty_cache()  # nothing where no GPU is used
