"""How a trial is optimised: the `train` section of a job file."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ffsd_ray.base_settings import (
    ADDED_LATER,
    LARGEST_BATCH,
    MOST_EPOCHS,
    NOT_IDENTITY,
    Decay,
    Problem,
    Rate,
    Settings,
    Share,
    refuse,
)
from ffsd_ray.nets.precision import Precision

Execution = Literal["eager", "graph", "compiled"]
RequestedExecution = Literal["auto", Execution]

#: Parameter of the Beta distributions that shares are drawn from.
_Beta = Annotated[float, Field(ge=0, le=100)]

#: AdamW moves every weight by about its rate: above this, networks diverge.
_HIGHEST_ADAMW_RATE = 0.05

#: Of an epoch.
_MOST_STEPS = 10_000_000


#: The dotted key of a recipe.
RECIPE = "train.recipe"

#: What a recipe sets in place of the defaults.
RECIPES: dict[str, dict[str, object]] = {
    "paper": {},
    "modern": {"optimiser": "adamw", "lr": 0.003, "weight_decay": 0.05, "schedule": "cosine", "mixup": 0.2},
}


def resolve_execution(requested: RequestedExecution, *, cuda: bool, one_worker: bool) -> Execution:
    """Resolve `auto`: a CUDA graph on a GPU with one worker, eager elsewhere.

    Compiling for a CPU takes one to two minutes; steps then were 7 and 11 % faster on one kind of processor, and slower
    on another (bench/README.md), so that is left to whoever has measured it.
    """
    if requested != "auto":
        return requested
    return "graph" if can_capture(cuda=cuda, one_worker=one_worker) else "eager"


def can_capture(*, cuda: bool, one_worker: bool) -> bool:
    """Whether `auto` captures a step. Several workers' is only where it is asked for, and elastic ones' never."""
    return cuda and one_worker


class TrainSettings(Settings):
    """Optimisation. The defaults are the paper's protocol on CIFAR-100 (Section IV-A)."""

    epochs: int = Field(300, ge=1, le=MOST_EPOCHS, description="Passes over the training images.")
    recipe: Literal["paper", "modern"] = Field(
        "paper",
        json_schema_extra=NOT_IDENTITY,
        description="What the other keys are that are left out: their defaults, which are the paper's; or, for own "
        "images, modern: " + ", ".join(f"{key} {value}" for key, value in RECIPES["modern"].items()) + ".",
    )
    batch_size: int = Field(
        128,
        ge=2,
        le=LARGEST_BATCH,
        description="Images a step over all workers together; the last partial batch is kept.",
    )
    steps_per_epoch: int | None = Field(
        None,
        ge=1,
        le=_MOST_STEPS,
        description="Cut every epoch to this many steps, for trying things out; null: the whole of it.",
    )
    optimiser: Literal["sgd", "adamw"] = Field(
        "sgd",
        json_schema_extra=ADDED_LATER,
        description="Of students, leader and fusion module: sgd with momentum, or adamw (rates of 0.001 or so, weight "
        "decays of 0.05 or so).",
    )
    lr: Rate = Field(0.1, description="Peak learning rate of this optimiser (students, leader, fusion module).")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Momentum of SGD.")
    nesterov: bool = Field(True, description="Nesterov momentum; needs a momentum above 0.")
    milestones: list[Annotated[int, Field(ge=0, le=MOST_EPOCHS)]] | None = Field(
        None,
        max_length=1000,
        description="Every learning rate is multiplied by lr_decay after these epochs; ascending, each inside the "
        "epochs. null: after 1/2 and 3/4 of them, the paper's 150 and 225 of 300.",
    )
    lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="Factor at each milestone.")
    schedule: Literal["steps", "cosine"] = Field(
        "steps",
        json_schema_extra=ADDED_LATER,
        description="steps: the learning rates fall at the milestones; cosine: from the end of the warm-up to the last "
        "step along half a cosine, to 0.",
    )
    warmup_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="Epochs over which the learning rates rise linearly, step by step."
    )
    warmup_from: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the learning rates that this warm-up rises from; needs warmup_epochs above 0."
    )
    weight_decay: Decay = Field(
        1e-4, description="Of every parameter of students and leader, batch norm and biases included; also of Adam."
    )
    fusion_weight_decay: Decay = Field(1e-5, description="Of the fusion module (published implementation).")
    adam_lr: Rate = Field(1e-3, description="Learning rate of Adam (self-distillation modules).")
    augment: Literal["standard", "trivial"] = Field(
        "standard",
        json_schema_extra=ADDED_LATER,
        description="standard: the crops and flips of the data section alone; trivial: then TrivialAugment, one of 14 "
        "changes of shape or colour for each image, of random strength (as torchvision's TrivialAugmentWide: shifts of "
        "up to 32 pixels, black outside).",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        json_schema_extra=ADDED_LATER,
        description="Share of a label's probability that is shared out among all classes.",
    )
    mixup: _Beta = Field(
        0.0,
        json_schema_extra=ADDED_LATER,
        description="α of mixup: each image is added to another in shares drawn from Beta(α, α), and so are their "
        "labels; 0: off. With cutmix too, each image is mixed one way or the other.",
    )
    cutmix: _Beta = Field(
        0.0,
        json_schema_extra=ADDED_LATER,
        description="α of CutMix: a rectangle of another image in each, of a share of it from Beta(α, α); 0: off.",
    )
    random_erasing: Share = Field(
        0.0,
        json_schema_extra=ADDED_LATER,
        description="Probability that a training image has a rectangle of 2 % to a third of its area erased.",
    )
    balanced: bool = Field(
        False,
        json_schema_extra=ADDED_LATER,
        description="Every epoch has as many images of each class: of rare ones each several times, with another "
        "augmentation, of frequent ones some. An epoch is as long as without.",
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        json_schema_extra=ADDED_LATER,
        description="Decay of a moving average of every member's weights, taken after each step (0.99 looks back over "
        "about 100 steps); evaluations, best epoch and deployed model are the average's. null: none.",
    )
    precision: Precision = Field(
        "fp32",
        description="fp32: float32 throughout, on GPUs too; tf32, on GPUs: convolutions in TF32, which is torch's own "
        "default there, all else in float32; bf16: networks under bfloat16 autocast, losses, normalisations and "
        "weights in float32.",
    )
    batch_norm: Literal["local", "sync"] = Field(
        "local",
        description="Batch statistics of a worker's own share, or of the global batch (sync needs GPUs). "
        "The running statistics kept are those of worker 0.",
    )
    execution: RequestedExecution = Field(
        "auto",
        description="How a step is run. eager: operation by operation; graph: as one CUDA graph (of one worker, or of "
        "several with a GPU each, which then average gradients inside it, not by DDP; two GPUs have not run that yet); "
        "compiled: by torch.compile, after minutes of compiling; auto: graph on GPUs with one worker, otherwise eager.",
    )
    member_streams: bool = Field(
        True,
        json_schema_extra=NOT_IDENTITY,
        description="Inside of a CUDA graph, forward and backward passes of networks that do not depend on each other "
        "overlap, each on a CUDA stream of its own; what is run otherwise has one stream.",
    )
    eval_batch_size: int = Field(
        500,
        ge=1,
        le=LARGEST_BATCH,
        json_schema_extra=NOT_IDENTITY,
        description="Images a worker takes at once in evaluation.",
    )
    evaluate_every: int = Field(
        1,
        ge=1,
        le=MOST_EPOCHS,
        json_schema_extra=ADDED_LATER,
        description="Epochs between evaluations on the test images and the validation split; the last epoch is always "
        "evaluated. The best epoch is chosen among those that are.",
    )
    checkpoint_every: int = Field(
        1,
        ge=1,
        le=MOST_EPOCHS,
        json_schema_extra=NOT_IDENTITY,
        description="Epochs between checkpoints; the last is always kept.",
    )

    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        le=_MOST_STEPS,
        json_schema_extra=NOT_IDENTITY,
        description="Steps between checkpoints inside a long epoch; null: only on a notice that a node goes.",
    )

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the group is evaluated after this epoch (from 1)."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    @property
    def decay_epochs(self) -> list[int]:
        """The milestones in force."""
        if self.schedule == "cosine":
            return []
        if self.milestones is not None:
            return self.milestones
        return sorted({self.epochs // 2, 3 * self.epochs // 4} - {0, self.epochs})

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, given: Any) -> Any:
        """With what the recipe sets; what is given goes over it, and a recipe that is none is told of later."""
        recipe = given.get("recipe") if isinstance(given, dict) else None
        return RECIPES[recipe] | given if isinstance(recipe, str) and recipe in RECIPES else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        milestones = self.milestones or []
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            yield Problem(("milestones",), milestones, "Milestones should be in ascending order")
        if any(not 1 <= milestone < self.epochs for milestone in milestones):
            yield Problem(
                ("milestones",), milestones, f"Milestones should lie inside the {self.epochs} epochs (1 to epochs - 1)"
            )
        if self.schedule == "cosine" and self.milestones is not None:
            yield Problem(("milestones",), milestones, "A cosine has none: leave them out, or set schedule: steps")
        if self.optimiser == "adamw" and self.lr > _HIGHEST_ADAMW_RATE:
            yield Problem(
                ("lr",), self.lr, f"AdamW diverges at such a rate: {_HIGHEST_ADAMW_RATE:g} or less, e.g. 0.001"
            )
        if 0 < self.epochs <= self.warmup_epochs:
            yield Problem(
                ("warmup_epochs",), self.warmup_epochs, f"The warm-up should be shorter than the {self.epochs} epochs"
            )
        if self.warmup_from and not self.warmup_epochs:
            yield Problem(("warmup_from",), self.warmup_from, "Needs warmup_epochs above 0: there is no warm-up")
        if self.nesterov and self.momentum == 0:
            yield Problem(("nesterov",), True, "Nesterov momentum needs a momentum above 0")
