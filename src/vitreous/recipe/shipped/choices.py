"""Data facts -> the choices that recipes have in common."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, halvable_size, learning_rate, tileable_size
from vitreous.wording import listed


def data_choices(facts: DataFacts, img_size: tuple[int, int]) -> list[Choice]:
    """Return the choices that follow from the images, plus the batch size."""
    rule = by_num_images(facts.num_train)
    return [
        Choice("data.img_size", img_size, _size_reason(facts, img_size)),
        *class_choices(facts),
        Choice("data.batch_size", rule.batch_size, f"suits {facts.num_train:,} training images"),
    ]


def class_choices(facts: DataFacts) -> list[Choice]:
    """Return the choices of channels, range, classes and mirroring, which the data decides in every recipe."""
    channels = {1: "all images are gray", 3: "at least one image is in color"}
    deep = [Choice("data.value_range", facts.value_range, facts.value_range_reason)] if facts.value_range else []
    return [
        Choice("data.in_chans", facts.in_chans, channels.get(facts.in_chans, "the number that the images have")),
        *deep,
        Choice("data.num_classes", len(facts.classes), listed(facts.classes)),
        Choice("data.flip", facts.mirror, facts.mirror_reason),
    ]


def model_choices(
    facts: DataFacts, asked: Mapping[str, Any], img_size: tuple[int, int], *, size: str, patch_size: int
) -> list[Choice]:
    """Return architecture and learning rate for a model size by name, e.g. `micro`."""
    row = SIZES[size]
    patch_size = asked.get("model.patch_size", patch_size)
    num_tokens = (img_size[0] // patch_size) * (img_size[1] // patch_size)
    batch_size = asked.get("data.batch_size", by_num_images(facts.num_train).batch_size)
    embed_dim = asked.get("model.embed_dim", row.embed_dim)
    suits = f"`vit_{size}` suits {facts.num_train:,} training images"
    return [
        Choice("model.patch_size", patch_size, f"cuts an image into {num_tokens} tokens"),
        Choice("model.embed_dim", row.embed_dim, suits),
        Choice("model.depth", row.depth, suits),
        Choice("model.num_heads", row.num_heads, suits),
        Choice("model.pool", "mean", "1.5 to 4 points better than a class token on small data (2104.05704)"),
        Choice("model.init", "xavier", "narrow models need larger initial weights than wide ones"),
        Choice("model.drop_path_rate", 0.1, "regularizes by skipping whole residual branches"),
        Choice("optim.lr", learning_rate(batch_size, embed_dim), f"for batch size {batch_size} and width {embed_dim}"),
    ]


def mixing_choices(asked: Mapping[str, Any], *, mixup_alpha: float) -> list[Choice]:
    """Return how images are mixed; nothing if the user sets it."""
    if {"data.mixup_alpha", "data.cutmix_alpha"} & set(asked):
        return []
    reason = "mixed images have the labels of both, so that a model cannot memorize the images"
    return [
        *([Choice("data.mixup_alpha", mixup_alpha, reason)] if mixup_alpha else []),
        Choice("data.cutmix_alpha", 1.0, reason),
        Choice("data.mix_rate", 0.5, "half of the batches; the others have whole images"),
    ]


def learner_choices(stem: str) -> list[Choice]:
    """Return the stem, if it has convolutions, and the optimizer for training from scratch on small data."""
    edges = "3x3 convolutions find edges and corners, which attention learns slowly from few images"
    wide = "twice the usual channels: a tenth more time, and more accurate"
    return [
        *([Choice("model.stem", "conv", edges), Choice("model.stem_ratio", 1.0, wide)] if stem == "conv" else []),
        Choice("optim.name", "muon", "learns more from each image than AdamW in short runs"),
    ]


def head_choice(facts: DataFacts, asked: Mapping[str, Any]) -> Choice:
    """Return how a new head on pretrained weights begins."""
    key = "train.head_init"
    if asked.get("model.distill_token") or facts.task == "multilabel":
        return Choice(key, "zero", "only a single head for one label per image can be fitted")
    return Choice(key, "fitted", "a head that already suits the features changes them less (2202.10054)")


def epoch_choice(facts: DataFacts) -> Choice:
    """Return the usual number of epochs for a training set of this size."""
    rule = by_num_images(facts.num_train)
    return Choice("train.epochs", float(rule.epochs), f"usual for {facts.num_train:,} training images")


def _size_reason(facts: DataFacts, img_size: tuple[int, int]) -> str:
    median = (facts.height_px, facts.width_px)
    is_same = facts.min_size_px == facts.max_size_px
    images = f"{'all images are' if is_same else 'the median size is'} {facts.height_px}x{facts.width_px} px"
    if img_size == median:
        return images
    if img_size in (tileable_size(*median), halvable_size(*median)):
        return f"{images}; rounded to a size that square patches tile"
    return f"{images}; resized to a size that trains fast from scratch"
