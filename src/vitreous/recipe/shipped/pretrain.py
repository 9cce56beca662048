"""Data facts -> choices of recipes that learn from images without labels, before their labels or instead."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.objective.config import uses_labels
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import head_choice
from vitreous.recipe.shipped.from_scratch import BY_SIZE, name_by_size
from vitreous.recipe.without_labels import NEED_LABELS, pretext_choices

STRETCH = 4.0
"""Epochs relative to those with labels: a reconstruction says less about an image than its label."""
PRETRAIN_RATIO = 0.5


def pretrain(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Pretrain a model on your own images without labels; `vitreous train DATA --pretrained RUN` continues from it.

    Source: masked autoencoding, He et al. 2021 (2111.06377); SimMIM, Xie et al. 2021 (2111.09886); LeJEPA, Balestriero
    & LeCun 2025 (2511.08544).

    Command: `vitreous pretrain photos --budget 10m`
    Cost: a step of MAE hides three quarters of the patches, and takes about half the time of a step with labels.
    Measured: not yet; `benchmarks/pretrain.py` compares it with training from scratch at equal total minutes.
    """
    loss = asked.get("objective.loss", "mae")
    if uses_labels(loss):
        raise ConfigError(f"objective.loss={loss}: recipe pretrain learns without labels; use mae, simmim or lejepa")
    with_labels = BY_SIZE[name_by_size(facts)](facts, asked)
    found = {choice.key: choice for choice in with_labels if choice.key not in (*NEED_LABELS, "data.mix_rate")}
    found |= {choice.key: choice for choice in pretext_choices(loss)}
    usual = found["train.epochs"]
    why = f"{STRETCH:g} times the epochs of training with labels, as images without labels teach less"
    found["train.epochs"] = replace(usual, value=STRETCH * usual.value, reason=why)
    return list(found.values())


def pretrain_finetune(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Pretrain on the training images by masked autoencoding, then train on their labels, within one budget.

    Source: He et al. 2021 (2111.06377), also for the decay of the learning rate from layer to layer, table 9.

    Command: `vitreous train photos --recipe pretrain-finetune --budget 10m`
    Cost: the same budget as without pretraining.
    Measured: not yet; `benchmarks/pretrain.py` compares it with training from scratch at equal total minutes.
    """
    first = "the first half learns from the images, the second half from their labels"
    return [
        *BY_SIZE[name_by_size(facts)](facts, asked),
        Choice("train.pretrain_ratio", PRETRAIN_RATIO, first),
        Choice("optim.layer_decay", 0.75, "pretrained early layers need less change than late ones"),
        head_choice(facts, asked),
    ]
