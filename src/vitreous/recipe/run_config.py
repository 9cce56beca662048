"""All keys of a run, one config per room -> RunConfig: frozen, complete, and enough to repeat the run."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError
from vitreous.extensions import changes_images
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import AttentionKernel
from vitreous.objective.config import ObjectiveConfig
from vitreous.optim.config import OptimConfig
from vitreous.ranges import Hint, Interval, check_fields
from vitreous.wording import show

MODEL_INPUT_KEYS = ("img_size", "in_chans", "num_classes")
"""Fields of ModelConfig that are keys of the data; the model takes over their values."""

Parallel = Literal["ddp", "fsdp"]
"""Replicate the model, optimizer state and weight average on each device, or shard them over the devices."""

Freeze = Literal["none", "backbone"]
"""Train everything, or only the head, which is a linear probe."""

HeadInit = Literal["zero", "fitted"]
"""Begin a new head on pretrained weights with zeros, or fit it to the features of the training images."""

Compile = Literal["none", "default", "reduce-overhead"]
"""Mode of `torch.compile`, or none."""

AttentionKernelChoice = Literal["auto", "explicit", "sdpa", "measured"]
"""The kernels of `model.parts.attention`, or `measured` to time them first."""

Logger = Literal["none", "tensorboard", "wandb", "mlflow", "trackio"]
"""Experiment trackers that a run can log to in addition to its own `records.jsonl`; each needs its package."""

_Count = Annotated[int, Interval("[0, 2**31)")]
_Seconds = Annotated[float, Interval("[0, inf)")]


@dataclass(frozen=True)
class TrainConfig:
    """Length, hardware, initial weights and safeguards of a run.

    Attributes:
        epochs: Passes over the training images; may be a fraction. With `train.budget_s`, an upper limit. 0 takes no
            step, and leaves pretrained weights as they are, with the head that is fitted to their features.
        budget_s: Time limit for the whole command, from reading the data to the saved model, in seconds. The length of
            the run is fitted to it. 0 sets no limit.
        seed: Seed of the initial weights, the order of images, augmentation and dropout.
        device: Device to train on: `auto` (the fastest one available), `cpu`, `cuda`, one GPU such as `cuda:1`, or
            `mps`.
        precision: Number format of matrix products. `fp32` is exact, `bf16` is bfloat16 autocast, `tf32` rounds the
            factors of float32 products (faster on NVIDIA GPUs since Ampere and on CPUs with AVX-512), `auto` uses
            `bf16` where the hardware multiplies it natively, otherwise `fp32`.
        parallel: How several processes share the model. `ddp` replicates it on each device, `fsdp` shards weights,
            optimizer state and weight average over the devices.
        compile: Mode of `torch.compile`. `default` compiles the model before the first step, `reduce-overhead` also
            replays it as a CUDA graph, `none` does not compile. Compiling pays off in long runs.
        attention_kernel: How attention is computed; the results differ only by rounding. `explicit` multiplies out the
            attention matrix, `sdpa` calls PyTorch's fused kernel, `auto` decides by the number of tokens, `measured`
            times both before the run and records the faster one.
        micro_batches: Number of micro-batches that a batch is split into for gradient accumulation: the same step with
            less memory.
        grad_checkpointing: Recompute each block in the backward pass instead of storing its activations. The gradients
            are the same; a step needs a fraction of the memory and takes about a third longer.
        checkpoint_every_s: Time between checkpoints, in seconds. A crash loses at most this much work.
        max_retries: How often a step with a non-finite loss or gradient is repeated before the run returns to its last
            checkpoint with half the learning rate, and how many such returns are allowed before the run fails.
        pretrained: Initial weights: a file, a run folder, `hf://organization/name`, or a name in `vitreous models`.
            `auto` chooses one of these. `none` draws random weights. If it is not set, photos start from a backbone in
            the cache.
        pretrained_weights: Weights to take from the checkpoint of a training run: `raw`, `ema` (their average, or a
            teacher), or the name of a part of the file. `auto` scores all of them by a linear classifier on their
            features of training images; the plan then has the name of the best, or of the average in case of doubt.
        pretrained_as: What no tensor of the file shows, as fields of its model: `num_heads=4 img_size=16x64`. The
            options `--architecture.num_heads 4 --architecture.img_size 16x64` set it too.
        pretrain_ratio: Share of the run, in epochs or of its time budget, in which the model first learns to
            reconstruct the training images, without labels (MAE). 0 learns from labels throughout.
        head_init: Initial weights of a new head on pretrained weights. `zero` gives every class the same probability,
            `fitted` is the best of several linear classifiers of the features of the training images, by
            cross-validation. Weights of known classes are kept. Without pretrained weights this has no effect.
        freeze: Weights that are not trained. `backbone` freezes everything except the head, which is a linear probe;
            `none` trains everything.
        freeze_blocks: Number of blocks to freeze, counted from the first, together with the patch and position
            embeddings before them.
        reuse_frozen: Compute the outputs of the blocks that `train.freeze_blocks` freezes once for each image, not
            in every step. Images must not be augmented or mixed then. A linear probe always does this.
        freeze_until: Point in the run after which frozen weights are trained too. 1 keeps them frozen to the end.
        lora_rank: Rank of LoRA updates. Above 0, the backbone is frozen, and a low-rank update of each weight matrix in
            the blocks is trained and merged into the matrix at the end. 0 turns LoRA off.
        lora_alpha: Scale of the LoRA updates, which are multiplied by `train.lora_alpha` / `train.lora_rank`.
        patch_drop_until: Point in the run after which `model.patch_drop_rate` no longer drops patches.
        start_img_size: Height and width of the images at the start of the run, in px, for progressive resizing; they
            grow to `data.img_size` in four sizes. `none` uses the full size throughout.
        resolution_until: Point in the run at which the images reach their full size, if `train.start_img_size` is set.
        patience_ratio: Early stopping: the run ends once the validation loss has not improved for this fraction of the
            run. 0 turns early stopping off.
        choose_weights: Save those weights that have the lowest loss on the validation images: the last ones, their
            average, or with early stopping those of the best evaluation. `false` saves the average; the validation
            images then influence nothing, so an accuracy that is reported on them is not optimistic.
        overfit_one_batch: Check before the run that a fresh model can overfit a single batch, and do not train if it
            cannot.
        deterministic: Use deterministic kernels, so that repeating a run gives the same weights on a GPU too. Slower;
            has no effect on a CPU, which is always deterministic.
        logger: Experiment tracker to log to, in addition to `records.jsonl` in the run folder.

    Raises:
        UnknownNameError: A name is not among the choices of its key.
        ConfigError: Another value has the wrong type, is out of range, or contradicts another key.
    """

    epochs: Annotated[float, Interval("[0, inf)", "20 is a start")] = 20.0
    budget_s: _Seconds = 0.0
    seed: Annotated[int, Interval("[0, 2**64)")] = 0
    device: Annotated[str, Hint("use auto, cpu, cuda or mps")] = "auto"
    precision: Annotated[str, Hint("use auto, fp32, tf32 or bf16")] = "auto"
    parallel: Parallel = "ddp"
    compile: Compile = "none"
    attention_kernel: AttentionKernelChoice = "auto"
    micro_batches: Annotated[int, Interval("[1, 2**31)", "1 does not split batches")] = 1
    grad_checkpointing: bool = False
    checkpoint_every_s: _Seconds = 60.0
    max_retries: _Count = 3
    pretrained: Annotated[str, Hint("give a file or folder of weights, or leave it out")] | None = None
    pretrained_weights: Annotated[str, Hint("use auto, raw, ema, or a name that `vitreous inspect` shows")] = "auto"
    pretrained_as: Annotated[str, Hint("use e.g. num_heads=4")] | None = None
    pretrain_ratio: Annotated[float, Interval("[0, 1)", "0.5 is usual")] = 0.0
    head_init: HeadInit = "zero"
    freeze: Freeze = "none"
    freeze_blocks: _Count = 0
    reuse_frozen: bool = False
    freeze_until: Annotated[float, Interval("(0, 1]")] = 1.0
    lora_rank: Annotated[int, Interval("[0, 2**31)", "8 is usual, 0 turns LoRA off")] = 0
    lora_alpha: Annotated[float, Interval("(0, inf)", "16 is usual")] = 16.0
    patch_drop_until: Annotated[float, Interval("[0, 1]")] = 1.0
    start_img_size: Annotated[tuple[int, int], Interval("[1, 2**31)", "half of data.img_size is usual")] | None = None
    resolution_until: Annotated[float, Interval("(0, 1]")] = 0.6
    patience_ratio: Annotated[float, Interval("[0, 1]", "0 turns early stopping off")] = 0.0
    choose_weights: bool = True
    overfit_one_batch: bool = False
    deterministic: bool = False
    logger: Logger = "none"

    @property
    def kernel(self) -> AttentionKernel:
        """Attention kernel; `auto` until `measured` has been replaced by the faster kernel."""
        return "auto" if self.attention_kernel == "measured" else self.attention_kernel

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.freeze == "backbone" and self.freeze_blocks:
            raise ConfigError(
                f"train.freeze_blocks={self.freeze_blocks}: train.freeze=backbone freezes all blocks already; leave "
                "one of the two out"
            )
        if self.lora_rank and (self.freeze != "none" or self.freeze_blocks):
            raise ConfigError(
                f"train.lora_rank={self.lora_rank}: freezes the backbone already; leave out train.freeze and "
                "train.freeze_blocks"
            )
        if self.patience_ratio and not self.choose_weights:
            raise ConfigError(
                f"train.patience_ratio={self.patience_ratio:g}: early stopping chooses the weights of the best "
                "evaluation; leave it out, or set train.choose_weights=true"
            )


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of one run, as `config.yaml` in the run folder stores it.

    `recipe` is the name of the recipe that the run is based on. Image size, channels and classes of the model are those
    of the data.

    Raises:
        ConfigError: Keys of two sections contradict each other.
    """

    recipe: str
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optim: OptimConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        self._check_task()
        self._check_distillation()
        self._check_start_size()
        train = self.train
        if train.parallel == "fsdp" and self.optim.name != "adamw":
            raise ConfigError(
                f"train.parallel=fsdp: optim.name={self.optim.name} does not support sharded weights; use "
                "train.parallel=ddp or optim.name=adamw"
            )
        if train.parallel == "fsdp" and train.compile != "none":
            raise ConfigError(
                f"train.compile={train.compile}: does not support the sharded weights of train.parallel=fsdp; use "
                "train.compile=none or train.parallel=ddp"
            )
        if train.head_init == "fitted" and self.model.distill_token:
            raise ConfigError(
                "train.head_init=fitted: does not support the two heads of model.distill_token=true; use "
                "train.head_init=zero"
            )
        if train.head_init == "fitted" and self.objective.loss == "multilabel":
            raise ConfigError(
                "train.head_init=fitted: fits one class per image, but the images have several labels; use "
                "train.head_init=zero"
            )
        if train.epochs == 0 and (train.pretrained is None or train.head_init != "fitted"):
            raise ConfigError(
                "train.epochs=0: takes no step, which needs train.pretrained and train.head_init=fitted; set both, or "
                "use more epochs"
            )
        if train.freeze_blocks > self.model.depth:
            raise ConfigError(
                f"train.freeze_blocks={train.freeze_blocks}: the model has only {self.model.depth} blocks; use fewer, "
                "or train.freeze=backbone"
            )
        if train.reuse_frozen and train.freeze_blocks and (changing := self.why_inputs_change()):
            raise ConfigError(
                f"train.reuse_frozen=True: the outputs of frozen blocks change during the run, because {changing}; "
                "leave that out, or train.reuse_frozen"
            )

    def why_inputs_change(self) -> str:
        """Return the first key that lets frozen blocks see different inputs in each epoch; empty if none does."""
        data, train, model = self.data, self.train, self.model
        uses_policy = data.policy != "none" and data.policy_rate > 0
        mixes = data.mix_rate > 0 and data.mix_until > 0
        changing = {
            "data.flip": data.flip, "data.max_shift": data.max_shift, "data.max_rotate_deg": data.max_rotate_deg,
            "data.max_scale": data.max_scale, "data.erase_rate": data.erase_rate,
            "data.color_jitter": data.color_jitter, "data.min_crop_area": data.min_crop_area < 1 and data.min_crop_area,
            "data.policy": uses_policy and data.policy, "data.mixup_alpha": mixes and data.mixup_alpha,
            "data.cutmix_alpha": mixes and data.cutmix_alpha, "train.start_img_size": train.start_img_size,
            "train.freeze_until": train.freeze_until < 1 and train.freeze_until,
            "model.patch_drop_rate": model.patch_drop_rate, "model.pos_drop_rate": model.pos_drop_rate,
            "model.extension": changes_images(model.extension) and model.extension,
        }  # fmt: skip
        return next((f"{key}={value}" for key, value in changing.items() if value), "")

    def _check_task(self) -> None:
        """Raise ConfigError unless the loss suits the number of labels per image."""
        task, loss = self.data.task, self.objective.loss
        if task == "multilabel" and loss != "multilabel" and self.objective.uses_labels:
            raise ConfigError(
                f"objective.loss={loss}: learns one label per image, but data.task=multilabel; leave it out"
            )
        if task == "single" and loss == "multilabel":
            raise ConfigError("objective.loss=multilabel: needs images with several labels (data.task); leave it out")

    def _check_start_size(self) -> None:
        """Raise ConfigError unless the model can take the images that the run starts with."""
        start, end, patch_size = self.train.start_img_size, self.model.img_size, self.model.patch_size
        if start is None:
            return
        text, full = show(start), show(end)
        if start[0] > end[0] or start[1] > end[1]:
            raise ConfigError(
                f"train.start_img_size={text}: must be at most data.img_size={full}; half of that is usual"
            )
        if start[0] % patch_size or start[1] % patch_size:
            raise ConfigError(
                f"train.start_img_size={text}: is not a multiple of model.patch_size={patch_size}; use multiples of it"
            )
        if self.model.relative_bias:
            raise ConfigError(
                f"train.start_img_size={text}: model.relative_bias=True needs a single image size; use model.rotary "
                "instead"
            )

    def _check_distillation(self) -> None:
        """Raise ConfigError unless the model can learn what `objective.distill` takes from the teacher."""
        kind, model = self.objective.distill, self.model
        if self.objective.teacher is None:
            return
        if self.train.compile != "none" and (kind.startswith("token") or kind == "feature"):
            raise ConfigError(
                f"train.compile={self.train.compile}: objective.distill={kind} reads activations inside the model, "
                "which compiled code does not expose; use train.compile=none or objective.distill=soft"
            )
        if kind.startswith("token") and not model.distill_token:
            raise ConfigError(
                f"objective.distill={kind}: needs a distillation token and the class token; use "
                "objective.distill=soft, or leave model.distill_token, model.pool and model.class_token out"
            )
        if kind == "feature" and model.patch_drop_rate:
            raise ConfigError(
                f"objective.distill=feature: compares all patches, but model.patch_drop_rate={model.patch_drop_rate} "
                "drops some; set it to 0, or use objective.distill=soft"
            )
