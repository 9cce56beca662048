"""Weights that were trained on other images, all of them trained on."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, learning_rate
from vitreous.recipe.shipped.choices import data_choices


def fine_tune(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """A model of `--pretrained`, brought to your classes: a short run, the first blocks changed least.

    Source: a rate for each layer, Clark et al. 2020 (2003.10555), and the head's as high as that of fresh weights, as
    in BEiT (2106.08254) and MAE (2111.06377, appendix A); short runs, Steiner et al. 2022, section 4.4 (2106.10270).

    Command: `vitreous train digits --pretrained vit_mnist_gpu.pt --epochs 3`, and the keys that this file leaves open
    Cost: 36 s on two Zen 3 cores that others used too.
    Measured: a ViT that somebody else trained on MNIST, after three epochs of other digits: 95.1 % of 441 test images,
    mean of 2 seeds, 94.6 to 95.7; with LoRA of rank 4 95.2 %, 94.8 to 95.7; the same model from fresh weights 94.1 %,
    93.9 to 94.3 (`benchmarks/fine_tune.py`).
    """
    check_pretrained("fine-tune", asked)
    img_size = asked["data.img_size"]
    epochs = by_num_images(facts.num_train).epochs / 4
    batch_size = asked.get("data.batch_size", by_num_images(facts.num_train).batch_size)
    rate = learning_rate(batch_size, asked["model.embed_dim"])
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.06, "objects stand a little off centre"),
        Choice("data.max_scale", 0.1, "and vary a little in size"),
        Choice("model.drop_path_rate", 0.1, "regularises; drops whole residual branches"),
        Choice("optim.lr", rate, "what fresh weights take is right for the head; other layers have their share of it"),
        Choice("optim.layer_decay", 0.75, "what sees edges and colours needs less change than what sees your classes"),
        Choice("train.epochs", epochs, "a quarter of what fresh weights take"),
    ]


def check_pretrained(recipe: str, asked: Mapping[str, Any]) -> None:
    """Raise ConfigError where there are no weights to begin from."""
    if asked.get("train.pretrained") is None:
        raise ConfigError(
            f"recipe={recipe}: begins with trained weights, and train.pretrained names none; give --pretrained FILE"
        )
