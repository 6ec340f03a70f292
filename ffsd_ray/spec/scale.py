"""What a trial runs on: the `scale` section of a job file."""

from typing import Self

from pydantic import Field, model_validator

from ffsd_ray.settings import NOT_IDENTITY, NonNegative, Problem, Settings, refuse


class ScaleSettings(Settings):
    """Workers and resources of each trial, and how many trials run at once."""

    workers: int = Field(1, ge=1, description="DDP workers of a trial; they share each global batch.")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a worker, part of what makes a run repeatable; null: cpus_per_worker."
    )
    cpus_per_worker: int = Field(1, ge=1, json_schema_extra=NOT_IDENTITY, description="CPUs reserved for a worker.")
    gpus_per_worker: NonNegative = Field(
        0,
        json_schema_extra=NOT_IDENTITY,
        description="GPUs reserved for a worker; below 1 several workers or trials share one; 0: train on the CPU.",
    )
    trials_at_once: int | None = Field(
        None, ge=1, json_schema_extra=NOT_IDENTITY, description="Trials running together; null: what the cluster holds."
    )

    @property
    def worker_threads(self) -> int:
        """CPU threads a worker computes with."""
        return self.threads or self.cpus_per_worker

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus_per_worker > 1 and not self.gpus_per_worker.is_integer():
            refuse(self, [Problem(("gpus_per_worker",), self.gpus_per_worker, "Above 1 it should be a whole number")])
        return self
