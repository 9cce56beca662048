"""Frozen pretrained weights; only the head is trained."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import data_choices
from vitreous.recipe.shipped.fine_tune import check_pretrained


def linear_probe(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train a linear classifier on the features of `--pretrained`, in about a minute.

    Source: Chen, Xie & He 2021, section 5 (2104.02057): a high learning rate, no weight decay. Unlike theirs, images
    are not augmented, so the features of each image are computed only once.

    Command: `vitreous train digits --pretrained vit_mnist_gpu.pt --train.freeze backbone --epochs 90`, plus the keys
    that this file leaves open.
    Cost: 56 s on two shared Zen 3 cores.
    Measured: a ViT trained on MNIST by another project, on the digits: 95.5% on 441 test images with both of 2 seeds
    (`benchmarks/fine_tune.py`).
    """
    check_pretrained("linear-probe", asked)
    unflipped = [choice for choice in data_choices(facts, asked, asked["data.img_size"]) if choice.key != "data.flip"]
    return [
        *unflipped,
        Choice("data.flip", False, "without augmentation, the features of each image are computed only once"),
        Choice("train.freeze", "backbone", "only the head is trained"),
        Choice("objective.label_smoothing", 0.0, "a linear classifier is rarely overconfident"),
        Choice("optim.lr", 1e-2, "a single linear layer allows large steps"),
        Choice("optim.weight_decay", 0.0, "few weights need no regularization"),
        Choice("train.epochs", 100.0, "epochs are fast once the features are computed"),
    ]
