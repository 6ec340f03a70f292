"""One worker against two: what splitting a batch over workers costs, or gains where each has a GPU (untried)."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ffsd_ray.bench.measure.timing import time_interleaved, wait_for
from ffsd_ray.bench.measure.workload import Workload
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.train.cuda_graph import WARM_UP
from ffsd_ray.train.device import use_device

#: Turns that do not count; on GPUs until steps have been captured.
_CPU_WARM_UP, _GPU_WARM_UP = 2, WARM_UP + 2


def compare_workers(specs: Mapping[str, TrialSpec], repeats: int) -> dict[str, Any]:
    """Figures of a step of each trial by its name, in turns; each worker is a process, on the CPU or a GPU of its own.

    Raises:
        RuntimeError: a worker died.
    """
    with ExitStack() as stack:
        groups = {name: stack.enter_context(_group(spec)) for name, spec in specs.items()}
        runs = {name: partial(_turn, group) for name, group in groups.items()}
        warm_up = _GPU_WARM_UP if any(spec.scale.uses_gpu for spec in specs.values()) else _CPU_WARM_UP
        timed = time_interleaved(runs, warm_up=warm_up, repeats=repeats, device=torch.device("cpu"))
    return {
        "workers": {name: {"spec": spec.model_dump(), "step": timed[name].figures()} for name, spec in specs.items()}
    }


@contextmanager
def _group(spec: TrialSpec) -> Iterator[list[Connection]]:
    """A trial's workers, each waiting for the word to do a step."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(spec.scale.most_workers)]
        processes = [
            context.Process(target=_work, args=(rank, spec.model_dump(), str(Path(folder) / "met"), theirs))
            for rank, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process, (_, theirs) in zip(processes, pipes, strict=True):
                process.start()
                theirs.close()  # so that a worker's death is seen
            yield [ours for ours, _ in pipes]
        finally:
            for process, (ours, _) in zip(processes, pipes, strict=True):
                ours.close()
                process.terminate()
                process.join()


def _turn(group: Sequence[Connection]) -> None:
    try:
        for worker in group:
            worker.send(None)
        for worker in group:
            worker.recv()
    except (EOFError, OSError) as error:
        raise RuntimeError("a worker died") from error


def _work(rank: int, content: dict[str, Any], meeting: str, parent: Connection) -> None:
    spec = TrialSpec.model_validate(content)
    workers, batch = spec.scale.most_workers, spec.train.batch_size
    device = torch.device(f"cuda:{rank}" if spec.scale.uses_gpu else "cpu")
    use_device(device, spec.train.precision)
    if workers > 1:
        backend = "nccl" if spec.scale.uses_gpu else "gloo"
        dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=workers)
    assert spec.data.known_classes is not None
    assert spec.data.known_size is not None
    images = synthetic_data(spec.data.known_classes, spec.data.known_size, train=batch, test=1)
    work = Workload(spec, images, device, rank=rank, world_size=workers)
    while True:
        try:
            parent.recv()
        except EOFError:
            return
        work.step()
        wait_for(device)
        parent.send(None)
