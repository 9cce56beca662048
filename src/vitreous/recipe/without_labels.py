"""A self-supervised loss -> the keys that suit it, and errors for keys that do not; a run -> its pretraining stage."""

from collections.abc import Iterator
from dataclasses import replace

from vitreous.errors import ConfigError
from vitreous.recipe import keys
from vitreous.recipe.plan import Choice
from vitreous.recipe.run_config import RunConfig
from vitreous.wording import show

NEED_LABELS = (
    "objective.teacher", "objective.distill", "objective.class_weights", "objective.logit_adjustment",
    "objective.bce_threshold", "data.mixup_alpha", "data.cutmix_alpha", "model.distill_token", "model.patch_drop_rate",
    "train.freeze", "train.freeze_blocks", "train.lora_rank", "train.head_init", "train.patience_ratio",
    "train.overfit_one_batch", "train.pretrain_ratio",
)  # fmt: skip
"""Keys of labels, heads and frozen weights, which keep their defaults in a run without labels. A mask replaces
`model.patch_drop_rate`."""
WITHOUT_LABELS = ("mask_ratio", "decoder_depth", "regularity_weight")
"""Keys of `objective` that have an effect only without labels."""


def pretext_choices(loss: str) -> Iterator[Choice]:
    """Yield what replaces other choices of a recipe if a run learns by this self-supervised loss.

    Source: MAE (2111.06377), table 8; SimMIM (2111.09886), section 4.1; LeJEPA (2511.08544). The learning rate remains
    that of the recipe.
    """
    paper = {"mae": "MAE", "simmim": "SimMIM", "lejepa": "LeJEPA"}[loss]
    yield Choice("objective.loss", loss, f"learns from the images without labels ({paper})")
    yield Choice("model.drop_path_rate", 0.0, f"as in {paper}")
    yield Choice("optim.name", "adamw", f"as in {paper}")
    yield Choice("optim.weight_decay", 0.05, f"as in {paper}")
    if loss == "lejepa":
        yield Choice("data.repeats", 2, "views of each image, which are to get the same embedding")
        yield Choice("data.min_crop_area", 0.3, "views show different parts of an image")
        yield Choice("data.color_jitter", 0.4, "views differ in color, which would give the image away")
        return
    yield Choice("objective.mask_ratio", 0.75 if loss == "mae" else 0.6, f"as in {paper}")
    yield Choice("optim.beta2", 0.95 if loss == "mae" else 0.999, f"as in {paper}")
    yield Choice("data.min_crop_area", 0.2 if loss == "mae" else 0.67, f"as in {paper}")


def pretraining(config: RunConfig) -> RunConfig:
    """Return the configuration of the stage of a run that pretrains by MAE before the labels are used.

    It has the `train.pretrain_ratio` of the epochs, or of the time budget.
    """
    values, defaults = keys.take_apart(config), keys.defaults()
    values |= {key: defaults[key] for key in NEED_LABELS}
    values |= {choice.key: choice.value for choice in pretext_choices("mae") if choice.key != "objective.mask_ratio"}
    values |= {key: config.train.pretrain_ratio * values[key] for key in ("train.epochs", "train.budget_s")}
    return keys.assemble(config.recipe, values)


def after_pretraining(config: RunConfig, weights: str) -> RunConfig:
    """Return the configuration of the rest of the run, which starts from the weights of its pretraining stage."""
    epochs = (1 - config.train.pretrain_ratio) * config.train.epochs
    return replace(config, train=replace(config.train, epochs=epochs, pretrained=weights))


def check_without_labels(config: RunConfig) -> None:
    """Raise ConfigError for a key that a self-supervised loss cannot use.

    It may be the loss of the run or of its pretraining stage.
    """
    objective, train, model = config.objective, config.train, config.model
    if train.pretrain_ratio and not train.epochs:
        raise ConfigError(
            f"train.pretrain_ratio={train.pretrain_ratio:g}: train.epochs=0 takes no step; use more epochs, or leave "
            "it out"
        )
    if not objective.uses_labels:
        values, defaults = keys.take_apart(config), keys.defaults()
        for key in NEED_LABELS:
            if values[key] != defaults[key]:
                raise ConfigError(
                    f"{key}={show(values[key])}: does not suit objective.loss={objective.loss}, which learns without "
                    "labels; leave it out"
                )
    elif config.data.task == "unlabeled":
        raise ConfigError(
            f"objective.loss={objective.loss}: learns from labels, but data.task=unlabeled; use `vitreous pretrain`, "
            "or put the images of each class into a folder with its name"
        )
    elif not train.pretrain_ratio:
        for key in WITHOUT_LABELS:
            if getattr(objective, key) != keys.defaults()[f"objective.{key}"]:
                raise ConfigError(
                    f"objective.{key}={getattr(objective, key):g}: has no effect with objective.loss={objective.loss}; "
                    "leave it out, or learn without labels: `vitreous pretrain`"
                )
        return
    if train.parallel == "fsdp":
        raise ConfigError(
            "train.parallel=fsdp: does not shard the decoder that learns without labels; use train.parallel=ddp"
        )
    normalizes = objective.loss == "mae" or objective.uses_labels
    if normalizes and model.in_chans * model.patch_size**2 == 1:
        raise ConfigError(
            "model.patch_size=1: patches of a single value cannot be normalized, which MAE does; use larger patches, "
            "or objective.loss=simmim"
        )
    if objective.loss != "lejepa" and model.num_patches < 2:
        raise ConfigError(
            f"model.patch_size={model.patch_size}: an image has only one patch, so none can be hidden; use smaller "
            "patches"
        )
    if objective.loss == "lejepa":
        _check_views(config)


def _check_views(config: RunConfig) -> None:
    """Raise ConfigError unless a batch has several views of each image, and is processed as a whole."""
    if config.data.repeats < 2:
        raise ConfigError(
            "data.repeats=1: objective.loss=lejepa compares views of an image; use 2 or more, or objective.loss=mae"
        )
    train = config.train
    for key, value, usual in (
        ("train.micro_batches", train.micro_batches, 1),
        ("train.compile", train.compile, "none"),
    ):
        if value != usual:
            raise ConfigError(
                f"{key}={value}: objective.loss=lejepa compares all images of a batch; use {key}={usual} and a smaller "
                "data.batch_size"
            )
