"""The smoke form of a job: every configuration of it, each for a moment."""

from dataclasses import replace

from ffsd_ray.spec.load import Plan, complete
from ffsd_ray.spec.trial import TrialSpec

#: What a smoke form sets; images are made no larger than this.
EPOCHS, STEPS, BATCH_SIZE, IMAGE_SIZE = 2, 2, 16, 64


def smoke(plan: Plan) -> Plan:
    """`plan` with one seed a configuration, 2 epochs of 2 steps of 16 images, images of 64 pixels at most.

    Nothing else changes, so what a smoke form shows to work is what the job trains. Its run has a name of its own.
    """
    first = {spec.configuration().identity(): spec for spec in reversed(plan.trials)}
    kept = [spec for spec in plan.trials if first[spec.configuration().identity()] is spec]
    template = _shortened(plan.template) if plan.template is not None else None
    job = plan.job.changed(name=f"{plan.job.name}-smoke")
    return replace(
        plan,
        job=job,
        trials=complete([_shortened(spec) for spec in kept], template),
        template=template,
        edges=tuple(_shortened(edge) for edge in plan.edges),
    )


def _shortened(spec: TrialSpec) -> TrialSpec:
    content = spec.model_dump()
    content["train"] |= {
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
        "batch_size": max(BATCH_SIZE, 2 * spec.scale.most_workers),
        "milestones": None,
        "warmup_epochs": min(spec.train.warmup_epochs, 1),
    }
    if content["data"].get("image_size"):
        content["data"]["image_size"] = min(content["data"]["image_size"], IMAGE_SIZE)
    return TrialSpec.model_validate(content)
