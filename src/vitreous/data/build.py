"""DataConfig -> the augmentation, mixing and sampling weights of training."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.mix import Mix
from vitreous.data.augmentation.policy import ColorJitter, Policy, RandAugment, ThreeAugment, TrivialAugment
from vitreous.data.config import DataConfig
from vitreous.data.label_sets import LabelArray, is_multilabel
from vitreous.data.sampling import balanced_weights
from vitreous.errors import ConfigError

_POLICIES: dict[str, Callable[[DataConfig], Policy]] = {
    "randaugment": lambda config: RandAugment(
        num_ops=config.policy_num_ops, strength=config.policy_strength, rate=config.policy_rate, fill=config.fill
    ),
    "trivialaugment": lambda config: TrivialAugment(rate=config.policy_rate, fill=config.fill),
    "3-augment": lambda config: ThreeAugment(rate=config.policy_rate),
}


def build_augment(config: DataConfig) -> Augment:
    """Build the augmentation: geometric transforms, then the policy, color jitter and erasing."""
    policies: list[Policy] = []
    if config.policy != "none" and config.policy_rate:
        policies.append(_POLICIES[config.policy](config))
    if config.color_jitter:
        policies.append(ColorJitter(amount=config.color_jitter))
    return Augment(
        flip=config.flip,
        min_crop_area=config.min_crop_area,
        max_shift=config.max_shift,
        max_rotate_deg=config.max_rotate_deg,
        max_scale=config.max_scale,
        erase_rate=config.erase_rate,
        fill=config.fill,
        policies=tuple(policies),
    )


def build_mix(config: DataConfig) -> Mix | None:
    """Build mixup, CutMix or a choice of both; None if the configuration never mixes images."""
    if not (config.mixup_alpha or config.cutmix_alpha) or not config.mix_rate or not config.mix_until:
        return None
    return Mix(
        num_classes=config.num_classes,
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
        cutmix_rate=config.cutmix_rate,
        rate=config.mix_rate,
        per_pair=config.mix_per == "pair",
        until=config.mix_until,
    )


def sampling_weights(
    config: DataConfig, labels: LabelArray, given: NDArray[np.float64] | None = None
) -> NDArray[np.float64] | None:
    """Return how often each training image is shown, relative to the others, `[n]`; None for once per epoch.

    `given` are weights that come with the data, `[n]`. Raises ConfigError for `data.sampler=weighted` without them, and
    for `balanced` if images have several labels.
    """
    if config.sampler == "weighted" and given is None:
        others = "shuffle" if is_multilabel(labels) else "balanced or shuffle"
        raise ConfigError(f"data.sampler=weighted: {config.source} has no sample weights; use {others}")
    if config.sampler == "balanced" and is_multilabel(labels):
        raise ConfigError(
            "data.sampler=balanced: an image with several labels belongs to no single class; use "
            "objective.class_weights=balanced"
        )
    if config.sampler == "balanced":
        return balanced_weights(labels)
    return given if config.sampler == "weighted" else None
