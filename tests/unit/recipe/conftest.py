"""Fixtures: facts of made-up data sets, and a complete configuration."""

from collections.abc import Callable
from typing import Any

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig


@pytest.fixture
def make_facts() -> Callable[..., DataFacts]:
    """Factory of data facts: `num_train` training images and a third of that number for testing."""

    def make(num_train: int = 1_300, *, height_px: int = 24, width_px: int = 36, **changes: Any) -> DataFacts:
        classes = changes.pop("classes", ("ant", "bee", "cat"))
        values: dict[str, Any] = {
            "name": "made-up",
            "classes": classes,
            "num_train": num_train,
            "num_val": max(1, num_train // 10),
            "num_test": num_train // 3,
            "class_counts": tuple(num_train // len(classes) for _ in classes),
            "in_chans": 3,
            "height_px": height_px,
            "width_px": width_px,
            "min_size_px": (height_px, width_px),
            "max_size_px": (height_px, width_px),
            "skipped": (),
            "notes": (),
            "mirror": True,
            "mirror_reason": "mirrored images keep their class",
            "mirror_looks_usual": True,
            "test_ratio": 0.2,
            "fingerprint": "f00d",
        }
        return DataFacts(**{**values, **changes})

    return make


@pytest.fixture
def values() -> dict[str, Any]:
    """All keys of a configuration. Each value differs from its default, so that a test notices a lost key."""
    given: dict[str, Any] = {
        "data.source": "/photos of ünï & 1: #2",
        "data.img_size": (24, 36),
        "data.in_chans": 3,
        "data.num_classes": 7,
        "data.fit": "squash",
        "data.mean": (0.1, 0.25, 1 / 3),
        "data.std": (0.2, 0.3, 1 / 7),
        "data.test_ratio": 0.3,
        "data.val_ratio": 0.15,
        "data.split_seed": 5,
        "data.batch_size": 11,
        "data.flip": True,
        "data.min_crop_area": 0.35,
        "data.max_shift": 0.07,
        "data.max_rotate_deg": 12.5,
        "data.max_scale": 0.11,
        "data.erase_rate": 0.2,
        "data.fill": "reflect",
        "data.policy": "randaugment",
        "data.policy_rate": 0.85,
        "data.policy_num_ops": 3,
        "data.policy_strength": 0.45,
        "data.color_jitter": 0.17,
        "data.mixup_alpha": 0.8,
        "data.cutmix_alpha": 1.25,
        "data.cutmix_rate": 0.35,
        "data.mix_rate": 0.95,
        "data.mix_per": "pair",
        "data.mix_until": 0.9,
        "data.sampler": "balanced",
        "data.repeats": 2,
        "data.memory_limit_bytes": 1_000_000_007,
        "model.patch_size": 6,
        "model.embed_dim": 20,
        "model.depth": 3,
        "model.num_heads": 5,
        "model.mlp_ratio": 2.5,
        "model.qkv_bias": False,
        "model.act": "relu",
        "model.position": "none",
        "model.pool": "mean",
        "model.init": "xavier",
        "model.norm_eps": 1e-12,
        "model.pos_drop_rate": 0.01,
        "model.proj_drop_rate": 0.02,
        "model.attn_drop_rate": 0.03,
        "model.drop_path_rate": 0.04,
        "objective.label_smoothing": 0.05,
        "objective.class_weights": "balanced",
        "optim.lr": 3.7e-05,
        "optim.weight_decay": 0.06,
        "optim.beta1": 0.8,
        "optim.beta2": 0.95,
        "optim.warmup_ratio": 0.2,
        "optim.clip_norm": 2.5,
        "optim.ema_window_ratio": 0.125,
        "train.epochs": 2.5,
        "train.budget_s": 90.5,
        "train.seed": 2**60 + 1,
        "train.device": "cuda:1",
        "train.precision": "bf16",
        "train.checkpoint_every_s": 7.25,
        "train.max_retries": 2,
    }
    # Keys that are not listed above have their defaults.
    return {key: given.get(key, keys.defaults().get(key)) for key in keys.rules()}


@pytest.fixture
def config(values: dict[str, Any]) -> RunConfig:
    return keys.assemble("by-hand", values)
