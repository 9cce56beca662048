"""Papers on training with about a million photos -> recipes with their hyperparameters."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import class_choices

_BIG_VISION_STEPS = 90 * 1_281_167 * 0.99 / 1024
"""Steps in 90 epochs of ImageNet-1k without the 1% that they hold out; 10,000 of them are the warm-up."""
_DEIT3_BY_WIDTH = {384: (4e-3, 0.05), 768: (3e-3, 0.2), 1024: (3e-3, 0.45), 1280: (3e-3, 0.6)}
"""Width of ViT-S, B, L and H -> learning rate, drop path rate."""


def deit(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train the DeiT-S of Touvron et al. 2021, "Training data-efficient image transformers" (2012.12877), table 9.

    Command: `vitreous train imagenet/ --recipe deit`
    Cost: about 60 hours on 4 V100 for DeiT-S, as the paper reports.
    Measured: 79.8% on ImageNet-1k in the paper (81.8% for DeiT-B, `--model vit_base_patch16_224`). We have not repeated
    this.

    Differences: their learning rate ends at 1e-5, ours at zero. They average the weights over a fixed number of steps,
    we over a fraction of the run.
    """
    epochs = asked.get("train.epochs", 300.0)
    batch_size = asked.get("data.batch_size", 1024)
    values = {
        "data.batch_size": 1024,
        "data.min_crop_area": 0.08,
        "data.policy": "randaugment",
        "data.policy_num_ops": 2,
        "data.policy_strength": 0.9,
        "data.erase_rate": 0.25,
        "data.mixup_alpha": 0.8,
        "data.cutmix_alpha": 1.0,
        "data.cutmix_rate": 0.5,
        "data.repeats": 3,
        "model.pool": "token",
        "model.init": "timm",
        "model.drop_path_rate": 0.1,
        "objective.label_smoothing": 0.1,
        "optim.lr": 5e-4 * batch_size / 512,
        "optim.weight_decay": 0.05,
        "optim.warmup_ratio": 5 / max(epochs, 25),
        "optim.clip_norm": 0.0,
        "train.epochs": 300.0,
    }
    return _choices(facts, asked, values=values, source="DeiT, table 9 (2012.12877)")


def deit3(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train the ViT-S of Touvron et al. 2022, "DeiT III: Revenge of the ViT" (2204.07118), as the authors' commands do.

    Command: `vitreous train imagenet/ --recipe deit3`
    Cost: 800 epochs on 8 GPUs in the paper.
    Measured: 81.4% for ViT-S on ImageNet-1k by the authors (83.8% for ViT-B, `--model vit_base_patch16_224
    --data.img_size 192`, then fine-tuned at 224 px). We have not repeated this.

    Difference: their learning rate starts at 1e-6 and ends at 1e-5, ours starts and ends at zero.
    """
    epochs = asked.get("train.epochs", 800.0)
    lr, drop_path_rate = _DEIT3_BY_WIDTH.get(asked.get("model.embed_dim", 384), (3e-3, 0.1))
    values = {
        "data.batch_size": 2048,
        "data.min_crop_area": 0.08,
        "data.policy": "3-augment",
        "data.color_jitter": 0.3,
        "data.mixup_alpha": 0.8,
        "data.cutmix_alpha": 1.0,
        "data.cutmix_rate": 0.5,
        "data.repeats": 3,
        "model.pool": "token",
        "model.prefix_position": "none",
        "model.layer_scale": 1e-4,
        "model.init": "deit3",
        "model.drop_path_rate": drop_path_rate,
        "model.drop_path_schedule": "constant",
        "objective.loss": "bce",
        "objective.label_smoothing": 0.0,
        "optim.name": "lamb",
        "optim.lr": lr,
        "optim.weight_decay": 0.05,
        "optim.warmup_ratio": 5 / max(epochs, 25),
        "optim.clip_norm": 1.0,
        "train.epochs": 800.0,
    }
    return _choices(facts, asked, values=values, source="DeiT III, table 1 (2204.07118)")


def big_vision_s16(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train the ViT-S/16 of Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k" (2205.01580).

    Command: `vitreous train imagenet/ --recipe big-vision-s16`
    Cost: 6 to 7 hours on a TPU v3-8 for 90 epochs, as the authors report.
    Measured: 76.5% on ImageNet-1k by the authors (80.0% with `--epochs 300`). We have not repeated this.

    Differences: their head has one more layer; according to their report, the accuracy is the same without it. Their
    weight decay of 1e-4 is not multiplied by the learning rate of 1e-3, ours is, so it is 0.1 here.
    """
    values = {
        "data.batch_size": 1024,
        "data.min_crop_area": 0.05,
        "data.policy": "randaugment",
        "data.policy_num_ops": 2,
        "data.policy_strength": 1.0,
        "data.mixup_alpha": 0.2,
        "model.position": "sincos2d_big_vision",
        "model.pool": "mean",
        "model.init": "jax",
        "objective.label_smoothing": 0.0,
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.1,
        "optim.warmup_ratio": 10_000 / _BIG_VISION_STEPS,
        "optim.clip_norm": 1.0,
        "train.epochs": 90.0,
    }
    return _choices(facts, asked, values=values, source="Beyer et al. 2022 (2205.01580)")


def _choices(facts: DataFacts, asked: Mapping[str, Any], *, values: Mapping[str, Any], source: str) -> list[Choice]:
    """Return the choices of a paper for a ViT-S/16, whatever the data.

    The facts decide channels, classes and mirroring. `values` are the hyperparameters of the paper by dotted key, and
    `source` is where it gives them, e.g. `DeiT, table 9`.
    """
    row = SIZES["small"]
    return [
        Choice("data.img_size", asked.get("data.img_size", (224, 224)), source),
        *class_choices(facts),
        Choice("model.patch_size", 16, source),
        Choice("model.embed_dim", row.embed_dim, "`vit_small`"),
        Choice("model.depth", row.depth, "`vit_small`"),
        Choice("model.num_heads", row.num_heads, "`vit_small`"),
        *(Choice(key, value, source) for key, value in values.items()),
    ]
