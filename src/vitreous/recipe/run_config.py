"""Every key of a run, grouped by room -> RunConfig: frozen, complete, and enough to repeat the run."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import AttentionKernel
from vitreous.objective.config import ObjectiveConfig
from vitreous.optim.config import OptimConfig

MODEL_INPUT_KEYS = ("img_size", "in_chans", "num_classes")
"""Fields of ModelConfig that are keys of the data: the data decides them, the model takes them over."""

Parallel = Literal["ddp", "fsdp"]
"""Each device has all weights, moments and averages; or a part, and fetches one block at a time."""

Freeze = Literal["none", "backbone"]
"""What stays as it is: nothing, or all but the head, which then is a linear probe."""

Compile = Literal["none", "default", "reduce-overhead"]
"""Compiled code in `torch.compile`'s mode of that name, or none."""

AttentionKernelChoice = Literal["auto", "explicit", "sdpa", "measured"]
"""Those of `model.attention`, and a wish to see which is faster here."""

Logger = Literal["none", "tensorboard", "wandb", "mlflow"]
"""Who is told of a run beside its own `records.jsonl`; each needs its package."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, where and how carefully a run trains.

    Attributes:
        epochs: Passes over the training images; fractions are allowed. With a budget, the longest that is worth it.
        budget_s: Wall-clock seconds for the whole command, from reading the data to the saved model; 0 is no limit.
        seed: Decides initial weights, order, augmentation and dropout.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: Of matrix products: `auto`, `fp32`, `bf16`, or `tf32`: float32 whose factors may be rounded, which is
            faster on GPUs since Ampere and on CPUs with AVX-512.
        parallel: With several processes: `ddp` keeps the whole model on each device, `fsdp` a part of it.
        compile: `default` turns the model into compiled code before the first step, `reduce-overhead` replays it on a
            GPU as one graph; which pays where steps are many and the device waits for Python. `none` for neither.
        attention_kernel: `explicit` forms softmax(QKᵀ/√d)V, `sdpa` calls the fused kernel; they differ by rounding.
            `auto` goes by the number of tokens; `measured` times steps of both before the run, whose configuration then
            names the faster one.
        micro_batches: Parts that a batch is cut into, one after the other: the same step in less memory.
        grad_checkpointing: Compute each block again in the backward instead of keeping what is inside it: the same
            gradients in a fraction of the memory, a third slower.
        checkpoint_every_s: Seconds between checkpoints; a crash loses at most this much.
        max_retries: Consecutive refused steps before the run goes back to its last checkpoint, and how often it may.
        pretrained: Weights to begin from: a file, a run folder, or `hf://organisation/name`; none: fresh ones.
        freeze: `none`, or `backbone`: all but the head keeps its weights, a linear probe.
        freeze_blocks: So many first blocks keep their weights, with all that comes before them.
        freeze_until: Progress of the run, in (0, 1], from which on what was frozen is trained too.
        lora_rank: Above 0 the backbone is frozen and each of its matrices learns a correction of this rank, which is
            added to it in the end.
        lora_alpha: The correction is scaled by `lora_alpha / lora_rank`.
        patch_drop_until: Progress from which on `model.patch_drop_rate` drops no patches any more.
        start_img_size: Height and width that images have at first, scaled down on the device; none: as in the end.
        resolution_until: Progress, in (0, 1], at which images have their full size, after four sizes.
        patience_ratio: Share of the run without a better validation loss after which it stops; 0: it never does.
        overfit_one_batch: Check first that a fresh model can overfit one batch; if not, the run does not begin.
        deterministic: On an accelerator too, the same run gives the same weights; slower.
        logger: `none`, `tensorboard`, `wandb` or `mlflow`.

    Raises:
        ConfigError: A value out of its range, or two that do not go together.
        UnknownNameError: A `freeze`, `logger`, `compile` or `attention` that does not exist.
    """

    epochs: float = 20.0
    budget_s: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    parallel: Parallel = "ddp"
    compile: Compile = "none"
    attention_kernel: AttentionKernelChoice = "auto"
    micro_batches: int = 1
    grad_checkpointing: bool = False
    checkpoint_every_s: float = 60.0
    max_retries: int = 3
    pretrained: str | None = None
    freeze: Freeze = "none"
    freeze_blocks: int = 0
    freeze_until: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    patch_drop_until: float = 1.0
    start_img_size: tuple[int, int] | None = None
    resolution_until: float = 0.6
    patience_ratio: float = 0.0
    overfit_one_batch: bool = False
    deterministic: bool = False
    logger: Logger = "none"

    @property
    def kernel(self) -> AttentionKernel:
        """Of attention; what is to be measured goes by the number of tokens until then."""
        return "auto" if self.attention_kernel == "measured" else self.attention_kernel

    def __post_init__(self) -> None:
        if not 0 < self.epochs < math.inf:
            raise ConfigError(f"train.epochs={self.epochs}: must be above 0 and finite; 20 is a start")
        if self.micro_batches < 1:
            raise ConfigError(f"train.micro_batches={self.micro_batches}: must be at least 1; 1 leaves batches whole")
        for key in ("budget_s", "checkpoint_every_s", "max_retries", "seed", "freeze_blocks", "lora_rank"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(
                    f"train.{key}={getattr(self, key)}: must be at least 0 and finite; leave it out for the default"
                )
        for key in ("patch_drop_until", "patience_ratio", "freeze_until", "resolution_until"):
            got, least = getattr(self, key), 0 if key in ("patch_drop_until", "patience_ratio") else 1e-9
            if not least <= got <= 1:
                above = "in [0, 1]" if least == 0 else "above 0 and at most 1"
                raise ConfigError(
                    f"train.{key}={got}: must be {above}, a share of the run; leave it out for the default"
                )
        self._check_frozen()

    def _check_frozen(self) -> None:
        """What keeps its weights is said in one way."""
        for key, kind in (
            ("freeze", Freeze),
            ("logger", Logger),
            ("compile", Compile),
            ("attention_kernel", AttentionKernelChoice),
        ):
            got, known = getattr(self, key), get_args(kind)
            if got not in known:
                raise UnknownNameError(f"train.{key}={got}: no such choice; {nearest(str(got), known)}")
        if not 0 < self.lora_alpha < math.inf:
            raise ConfigError(f"train.lora_alpha={self.lora_alpha}: must be above 0 and finite; 16 is usual")
        if self.freeze == "backbone" and self.freeze_blocks:
            raise ConfigError(
                f"train.freeze_blocks={self.freeze_blocks}: train.freeze=backbone freezes all blocks; leave one out"
            )
        if self.lora_rank and (self.freeze != "none" or self.freeze_blocks):
            raise ConfigError(f"train.lora_rank={self.lora_rank}: freezes the backbone itself; leave train.freeze out")


@dataclass(frozen=True)
class RunConfig:
    """One run, written down; `config.yaml` in the run folder holds it.

    Attributes:
        recipe: Name of the recipe that it came from.
        data: From image files to batches.
        model: The architecture; its image size, channels and classes are those of the data.
        objective: What is minimised.
        optim: How the weights follow the gradient.
        train: How long, where, how carefully.

    Raises:
        ConfigError: Keys of two rooms that do not go together.
    """

    recipe: str
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optim: OptimConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        self._check_distilled()
        train, model = self.train, self.model
        if train.parallel == "fsdp" and self.optim.name != "adamw":
            raise ConfigError(
                f"train.parallel=fsdp: optim.name={self.optim.name} is not made for divided weights; use "
                "train.parallel=ddp, or optim.name=adamw"
            )
        if train.parallel == "fsdp" and train.compile != "none":
            raise ConfigError(
                f"train.compile={train.compile}: is not made for the divided weights of train.parallel=fsdp; use "
                "train.compile=none, or train.parallel=ddp"
            )
        if train.freeze_blocks > model.depth:
            raise ConfigError(
                f"train.freeze_blocks={train.freeze_blocks}: the model has {model.depth} blocks; use fewer, or "
                "train.freeze=backbone"
            )
        start, end, side = train.start_img_size, model.img_size, model.patch_size
        if start is None:
            return
        text, full = "x".join(map(str, start)), "x".join(map(str, end))
        if start[0] > end[0] or start[1] > end[1] or min(start) < side:
            raise ConfigError(
                f"train.start_img_size={text}: must be at least model.patch_size={side} and at most "
                f"data.img_size={full}; a half of that is usual"
            )
        if start[0] % side or start[1] % side:
            raise ConfigError(
                f"train.start_img_size={text}: is not tiled by model.patch_size={side}; use multiples of it"
            )
        if model.relative_bias:
            raise ConfigError(
                f"train.start_img_size={text}: model.relative_bias=True has entries for one grid only; use model.rotary"
            )

    def _check_distilled(self) -> None:
        """What a teacher says can be heard."""
        kind, model = self.objective.distill, self.model
        if self.objective.teacher is None:
            return
        if self.train.compile != "none" and (kind.startswith("token") or kind == "feature"):
            raise ConfigError(
                f"train.compile={self.train.compile}: objective.distill={kind} reads inside the model, where compiled "
                "code does not let it; use train.compile=none, or objective.distill=soft"
            )
        if kind.startswith("token") and not model.distill_token:
            raise ConfigError(
                f"objective.distill={kind}: model.distill_token=False leaves nobody to hear it; set it to true, or "
                "objective.distill=soft"
            )
        if kind == "feature" and model.patch_drop_rate:
            raise ConfigError(
                f"objective.distill=feature: model.patch_drop_rate={model.patch_drop_rate} leaves holes where patches "
                "are compared; set it to 0, or objective.distill=soft"
            )
