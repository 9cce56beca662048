"""DeiT's recipe for about a million photos: a plain ViT without extra data."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.published import published_choices


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
    return published_choices(facts, asked, size="small", values=values, source="DeiT, table 9 (2012.12877)")
