"""The smoke form of a job: every configuration of it, each for a moment."""

from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.load import Plan
from ffsd_ray.config.searchers import Asha, MedianStopping, Pbt
from ffsd_ray.config.trial import TrialSpec

#: What a smoke form sets; images are made no larger than this, where that is large enough for every network.
EPOCHS, STEPS, BATCH_SIZE, IMAGE_SIZE = 2, 2, 16, 64
#: Pixels by which larger images are tried otherwise.
_GROWTH = 16


def smoke(plan: Plan) -> Plan:
    """`plan` with one seed a configuration, 2 epochs of 2 steps of 16 images, images of 64 pixels at most.

    Where a network, a method or the crop needs larger images, they are the smallest multiple of 16 that suits all
    trials, and never larger than the job's own. Batch sizes that differ stay. Every epoch is evaluated, and a scheduler
    looks at it. Nothing else changes, so what a smoke form shows to work is what the job trains. Its run has a name of
    its own.
    """
    first: dict[object, TrialSpec] = {}
    for spec in plan.trials:
        first.setdefault(spec.configuration().planned_identity(), spec)
    batch_size = BATCH_SIZE if len({spec.train.batch_size for spec in plan.specs}) == 1 else None
    one_seed_each = replace(plan, job=_shortened_job(plan.job), trials=tuple(first.values()))
    largest = max(getattr(spec.data, "image_size", None) or 0 for spec in plan.specs)
    for size in (*range(IMAGE_SIZE, largest, _GROWTH), max(IMAGE_SIZE, largest)):
        try:
            shortened = one_seed_each.changed(partial(_shortened, size=size, batch_size=batch_size))
        except ValidationError:
            if size >= largest:
                raise
        else:
            break
    return shortened


def _shortened_job(job: JobSpec) -> JobSpec:
    """With a name of its own, and a scheduler that acts within the smoke form's epochs."""
    scheduler = job.search.scheduler
    if isinstance(scheduler, Asha | MedianStopping):
        scheduler = scheduler.changed(grace_epochs=1)
    elif isinstance(scheduler, Pbt):
        scheduler = scheduler.changed(every_epochs=1)
    return job.changed(name=f"{job.name}-smoke", search=job.search.changed(scheduler=scheduler))


def _shortened(spec: TrialSpec, size: int, batch_size: int | None) -> TrialSpec:
    """`batch_size`: None for the trial's own."""
    train = spec.train.changed(
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        batch_size=max(batch_size or spec.train.batch_size, 2 * spec.scale.most_workers),
        milestones=None,
        warmup_epochs=min(spec.train.warmup_epochs, 1),
        evaluate_every=1,
        checkpoint_every=1,
    )
    image_size = getattr(spec.data, "image_size", None)
    data = spec.data.changed(image_size=min(image_size, size)) if image_size else spec.data
    return spec.changed(train=train, data=data)
