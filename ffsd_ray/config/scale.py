"""Resources of a trial: the `scale` section of a job file."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ffsd_ray.base_settings import MOST_ITEMS, NOT_IDENTITY, Problem, Settings, refuse

#: Workers of a trial, and threads and CPUs of a worker: more is a slip, which would fill a machine's memory.
_MOST = 1024
#: Ray counts GPUs in ten-thousandths.
_GPU_PARTS = 10_000


def _number_or_auto(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PydanticCustomError("number_or_auto", "Should be a number, 0 or more, or auto")
    if value > _MOST:
        raise PydanticCustomError("number_or_auto", f"Should be {_MOST} or less, or auto")
    return float(value)


GpuShare = Annotated[
    float | Literal["auto"] | None,
    BeforeValidator(_number_or_auto),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": _MOST}, {"enum": ["auto", None]}]}),
]


class WorkerRange(Settings):
    """An elastic trial: it goes on with the workers that there are."""

    min: int = Field(1, ge=1, le=_MOST, json_schema_extra=NOT_IDENTITY, description="Fewest workers to train with.")
    max: int = Field(
        ge=1, le=_MOST, description="Most workers; the global batch is cut into so many parts in any case."
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.min > self.max:
            refuse(self, [Problem(("min",), self.min, f"Should be at most max, {self.max}")])
        return self


def _number_or_range(value: Any) -> Any:
    if isinstance(value, dict | WorkerRange):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        expected = f"Should be a whole number from 1 to {_MOST}, or {{min: 1, max: 4}}"
        raise PydanticCustomError("number_or_range", expected)
    return value


class ScaleSettings(Settings):
    """Workers and resources of each trial, and how many trials run at once."""

    workers: Annotated[Annotated[int, Field(ge=1, le=_MOST)] | WorkerRange, BeforeValidator(_number_or_range)] = Field(
        1,
        description="DDP workers of a trial; they share each global batch. {min: 1, max: 4}: as many as there is room "
        "for, which may change while it trains; what it computes does not depend on it.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=_MOST,
        description="CPU threads of a worker, part of what makes a run repeatable; null: cpus_per_worker.",
    )
    cpus_per_worker: int | None = Field(
        None,
        ge=1,
        le=_MOST,
        json_schema_extra=NOT_IDENTITY,
        description="CPUs reserved for a worker. null: its share of this machine's CPUs (no more than OMP_NUM_THREADS) "
        "among the trials that run at once; 1 where threads or for_networks is given, on a GPU, and on a cluster that "
        "RAY_ADDRESS names.",
    )
    gpus_per_worker: GpuShare = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="GPUs reserved for a worker; below 1 several workers or trials share one; 0: train on the CPU; "
        "auto: where NVIDIA's MPS runs, an eighth, or what a step's peak memory, measured before, asks for if that is "
        "more; 1 without MPS, for trials then gain nothing from sharing. null: 1 if this machine, or the cluster "
        "with what its autoscaler may start, has as many GPUs as each trial then needs; else 0.",
    )
    memory_per_worker_gib: float = Field(
        0, ge=0, le=100_000, json_schema_extra=NOT_IDENTITY, description="Memory reserved for a worker in GiB; 0: none."
    )
    for_networks: int | None = Field(
        None,
        ge=1,
        le=_MOST,
        json_schema_extra=NOT_IDENTITY,
        description="CPUs, GPU share and memory above are meant for a group of so many networks (leader included); a "
        "trial gets them in proportion to its own number. null: the same for every trial. Set threads with it, or "
        "trials of other sizes also compute with other numbers of threads.",
    )
    trials_at_once: int | None = Field(
        None,
        ge=1,
        le=MOST_ITEMS,
        json_schema_extra=NOT_IDENTITY,
        description="Trials running together; null: what the cluster holds.",
    )
    launcher: Literal["auto", "trainer", "trial"] = Field(
        "auto",
        json_schema_extra=NOT_IDENTITY,
        description="trainer: Ray Train starts each trial's workers; trial: a trial of one worker trains in Tune's own "
        "process, which then trains the next one (starts sooner); auto: trial for one worker on a Ray of this machine "
        "alone and for populations, else trainer. What is computed does not depend on it.",
    )

    @property
    def most_workers(self) -> int:
        """Workers that a trial has at most; so many parts a global batch has."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def fewest_workers(self) -> int:
        """Workers that it needs."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def elastic(self) -> bool:
        return isinstance(self.workers, WorkerRange)

    @property
    def one_worker(self) -> bool:
        """Whether a trial has exactly one worker from its beginning to its end."""
        return self.workers == 1

    @property
    def worker_threads(self) -> int:
        """CPU threads a worker computes with."""
        return self.threads or self.cpus

    @property
    def cpus(self) -> int:
        """CPUs to reserve for a worker; 1 where that has not been chosen."""
        return self.cpus_per_worker or 1

    @property
    def uses_gpu(self) -> bool:
        """Whether a worker trains on a GPU; it does not where that has not been chosen."""
        return self.gpu_share != 0

    @property
    def whole_gpus(self) -> bool:
        """Whether each of a fixed number of workers is sure to have a GPU of its own."""
        gpus = self.gpus_per_worker
        return not self.elastic and self.for_networks is None and isinstance(gpus, float) and gpus >= 1

    @property
    def gpu_share(self) -> float:
        """GPUs to reserve for a worker; a whole one for `auto`, as long as nothing has been measured."""
        return 1.0 if self.gpus_per_worker == "auto" else self.gpus_per_worker or 0.0

    @property
    def left_open(self) -> frozenset[str]:
        """The keys of which a run chooses the values when it begins, by what it finds, see `ffsd_ray.job_resources`."""
        gpus = self.gpus_per_worker is None
        cpus = self.cpus_per_worker is None and self.threads is None and not self.uses_gpu
        return frozenset(["gpus_per_worker"] * gpus + ["cpus_per_worker"] * cpus)

    def resolved(self, networks: int) -> Self:
        """The resources for a group of this many networks, with `for_networks` null: CPUs rounded up, a GPU share down.

        A worker computes on one GPU, so its share does not grow beyond one, unless more are asked for.
        """
        if self.for_networks is None:
            return self
        times = networks / self.for_networks
        gpus = self.gpus_per_worker
        if isinstance(gpus, float) and gpus:
            grown = min(gpus * times, max(1.0, gpus))
            parts = math.floor(grown * _GPU_PARTS + 1e-6) / _GPU_PARTS
            gpus = float(math.ceil(grown)) if grown > 1 else max(parts, 1 / _GPU_PARTS)
        return self.changed(
            cpus_per_worker=-(-self.cpus * networks // self.for_networks),
            gpus_per_worker=gpus,
            memory_per_worker_gib=round(self.memory_per_worker_gib * times, 3),
            for_networks=None,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        gpus = self.gpus_per_worker
        if isinstance(gpus, float) and gpus > 1 and not gpus.is_integer():
            yield Problem(("gpus_per_worker",), gpus, "Above 1 it should be a whole number")
        if self.launcher == "trial" and self.most_workers > 1:
            expected = f"Tune's own process is one worker, and there are {self.most_workers}; use trainer"
            yield Problem(("launcher",), self.launcher, expected)
