"""Pretrained weights -> a recipe that fine-tunes all of them, and one that trains only a head."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, learning_rate, why_not_photos
from vitreous.recipe.shipped.choices import data_choices, head_choice


def fine_tune(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Fine-tune the model of `--pretrained` on your classes: a short run that changes the first blocks least.

    Source: learning rates that decay per layer, Clark et al. 2020 (2003.10555); the head at the full rate, as in BEiT
    (2106.08254) and MAE (2111.06377, appendix A); short runs, Steiner et al. 2022, section 4.4 (2106.10270).

    Command: `vitreous train digits --pretrained vit_mnist_gpu.pt --epochs 3`, plus the keys that this file leaves open.
    Cost: 36 s on two shared Zen 3 cores.
    Measured: a ViT trained on MNIST by another project, after three epochs on the digits: 95.1% on 441 test images,
    mean of 2 seeds, 94.6% to 95.7%; with LoRA of rank 4 95.2%, 94.8% to 95.7%; the same model trained from scratch
    94.1%, 93.9% to 94.3% (`benchmarks/fine_tune.py`).
    """
    check_pretrained("fine-tune", asked)
    img_size = asked["data.img_size"]
    epochs = by_num_images(facts.num_train).epochs / 4
    batch_size = asked.get("data.batch_size", by_num_images(facts.num_train).batch_size)
    head = head_choice(facts, asked)
    rate = learning_rate(batch_size, asked["model.embed_dim"])
    why = "the rate for training from scratch, which suits the head; optim.layer_decay lowers it for earlier layers"
    if asked.get("train.head_init", head.value) == "fitted":
        rate, why = float(f"{rate / 4:.2g}"), "a quarter of the rate for training from scratch, as the head is fitted"
    return [
        *data_choices(facts, img_size),
        *_augmentation(facts),
        Choice("model.drop_path_rate", 0.1, "regularizes by skipping whole residual branches"),
        Choice("optim.lr", rate, why),
        Choice(
            "optim.layer_decay",
            0.75,
            "early layers detect edges and colors, and need less change than late layers, which detect classes",
        ),
        head,
        Choice("train.epochs", epochs, "pretrained weights need a quarter of the epochs of training from scratch"),
    ]


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
    unflipped = [choice for choice in data_choices(facts, asked["data.img_size"]) if choice.key != "data.flip"]
    return [
        *unflipped,
        Choice("data.flip", False, "without augmentation, the features of each image are computed only once"),
        Choice("train.freeze", "backbone", "only the head is trained"),
        Choice("objective.label_smoothing", 0.0, "a linear classifier is rarely overconfident"),
        Choice("optim.lr", 1e-2, "a single linear layer allows large steps"),
        Choice("optim.weight_decay", 0.0, "few weights need no regularization"),
        Choice("train.epochs", 100.0, "epochs are fast once the features are computed"),
    ]


def _augmentation(facts: DataFacts) -> list[Choice]:
    if not why_not_photos(facts):
        reason = "part of a photo usually shows the same class; without crops, pretrained weights soon overfit"
        return [Choice("data.min_crop_area", 0.5, reason)]
    return [
        Choice("data.max_shift", 0.06, "objects are a little off-center"),
        Choice("data.max_scale", 0.1, "objects vary a little in size"),
    ]


def check_pretrained(recipe: str, asked: Mapping[str, Any]) -> None:
    """Raise ConfigError if no pretrained weights are given."""
    if asked.get("train.pretrained") is None:
        raise ConfigError(
            f"train.pretrained=none: recipe {recipe} starts from pretrained weights; give --pretrained auto or FILE"
        )
