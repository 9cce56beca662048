"""Weights that were trained on other images, kept as they are; only the head is trained."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import data_choices
from vitreous.recipe.shipped.fine_tune import check_pretrained


def linear_probe(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """How well the features of `--pretrained` tell your classes apart by a linear layer alone; a minute's work.

    Source: Chen, Xie & He 2021, section 5 (2104.02057) for the protocol, a high rate and no decay; unlike theirs images
    are not varied, so that the features of each are computed once.

    Command: `vitreous train digits --pretrained vit_mnist_gpu.pt --train.freeze backbone --epochs 90`, and the keys
    that this file leaves open
    Cost: 56 s on two Zen 3 cores that others used too.
    Measured: a ViT that somebody else trained on MNIST, on other digits: 95.5 % of 441 test images in both of 2 seeds
    (`benchmarks/fine_tune.py`).
    """
    check_pretrained("linear-probe", asked)
    constant = [choice for choice in data_choices(facts, asked, asked["data.img_size"]) if choice.key != "data.flip"]
    return [
        *constant,
        Choice("data.flip", False, "images that never vary have features that are computed once"),
        Choice("train.freeze", "backbone", "the head alone is trained"),
        Choice("objective.label_smoothing", 0.0, "a linear layer is not too sure of itself"),
        Choice("optim.lr", 1e-2, "a layer that is trained alone takes large steps"),
        Choice("optim.weight_decay", 0.0, "few weights need no decay"),
        Choice("train.epochs", 100.0, "an epoch takes a moment once features are there"),
    ]
