"""The repeated work of a trial, without its trainer: training step, epoch and evaluation."""

import math
from collections import deque

import torch

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.train.device import use_precision
from ffsd_ray.train.engine import Engine, trained_parameters

#: Every λ has risen by then.
EPOCH = 6


class Workload:
    """A trial of the data set's images as the trainer would train it, on a device, with its spec's threads.

    `rank` and `world_size`: of the process group, where it is one of several workers.
    """

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, device: torch.device, *, rank: int = 0, world_size: int = 1
    ) -> None:
        use_settings(spec)
        self._spec = spec
        self._engine = Engine(spec, dataset, device, rank=rank, world_size=world_size)
        self._engine.begin(EPOCH)
        self._resident = next(self._engine.inputs(EPOCH, stop=1))
        #: Steps of an epoch, and batches of an evaluation.
        self.steps = self._engine.steps
        self.evaluations = math.ceil(len(dataset.test) / spec.train.eval_batch_size)

    @property
    def networks(self) -> int:
        """How many are trained together."""
        return len(self._engine.method.networks)

    @property
    def parameters(self) -> int:
        """How many are trained."""
        return trained_parameters(self._engine.method)

    @property
    def captured(self) -> bool:
        """Whether steps are replayed as a CUDA graph."""
        return self._engine.executor.captured

    def step(self) -> object:
        """One training step on a batch that is on the device already."""
        use_settings(self._spec)
        return self._engine.step(self._resident, 1.0)

    def epoch(self, steps: int) -> None:
        """The first `steps` of an epoch, with everything that training does in one but the evaluation."""
        use_settings(self._spec)
        self._engine.begin(EPOCH)
        meters = self._engine.meters()
        deque(self._engine.epoch(EPOCH, meters, stop=steps), maxlen=0)
        meters.read(EPOCH)

    def evaluate(self, batches: int) -> None:
        """The first `batches` of the test images."""
        use_settings(self._spec)
        self._engine.method.eval()
        self._engine.measure("test", batches)
        self._engine.method.train()


def with_train(spec: TrialSpec, **changes: object) -> TrialSpec:
    """The trial with other settings of its `train` section."""
    return spec.changed(train=spec.train.changed(**changes))


def use_settings(spec: TrialSpec) -> None:
    """Compute with the trial's number of CPU threads, and in its precision, whatever this process computed before."""
    use_precision(spec.train.precision)
    if torch.get_num_threads() != spec.scale.worker_threads:
        torch.set_num_threads(spec.scale.worker_threads)
