"""How much of a GPU's memory training takes."""

from itertools import islice
from typing import NamedTuple

import torch

from ffsd_ray import data
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train import optimisers
from ffsd_ray.train.execution import Executor
from ffsd_ray.train.replay import WARM_UP
from ffsd_ray.train.trainer import build_method, train_batches


class Reading(NamedTuple):
    """Bytes of a GPU: free before, and reserved at most while a trial trained on it."""

    free: int
    peak: int


def read_peak(spec: TrialSpec, device: torch.device) -> Reading:
    """Train the trial for a few steps, until one has been captured where steps are, and predict a batch.

    Raises:
        DataError: the images cannot be read.
        TrialError: the trial cannot be trained.
    """
    free, _ = torch.cuda.mem_get_info(device)
    torch.cuda.reset_peak_memory_stats(device)
    workers = spec.scale.most_workers
    dataset = data.load(spec.data)
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    method.to(device).to(memory_format=torch.channels_last)
    batches = train_batches(spec, dataset, device, views=method.views, world_size=workers)
    executor = Executor(
        method, method, optimisers.build(method, spec.train), batches, spec.train.execution, workers=workers
    )
    method.begin_epoch(spec.train.epochs)  # every term acts by then
    for drawn, weight in islice(batches.drawn(1), WARM_UP + 2):
        executor.train(drawn, weight)
    method.eval()
    images = dataset.test.to(device)
    size = spec.train.eval_batch_size
    with torch.inference_mode():
        for inputs, _ in islice(EvalBatches(images, dataset.mean, dataset.std, batch_size=size), 1):
            executor.predict(inputs)
    return Reading(free, torch.cuda.max_memory_reserved(device))
