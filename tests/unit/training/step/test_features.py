import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitreous.data.augmentation.augment import Augment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import TrainLoader
from vitreous.data.pixels.store import MemoryStore
from vitreous.errors import ConfigError
from vitreous.model.change.trim import trim_last_block
from vitreous.model.vit import VisionTransformer
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.step.features import compute_features, fixed_outputs
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.state import TrainState
from vitreous.training.step.views import own_view


@pytest.fixture
def loader() -> TrainLoader:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 3, 8, 12), dtype=np.uint8)
    store = MemoryStore(torch.from_numpy(pixels), torch.arange(11) % 5)
    preprocess = Preprocess((8, 12), 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return TrainLoader(store, preprocess, Augment(), batch_size=4, seed=7)


@pytest.fixture
def model(make_state: Callable[..., TrainState]) -> VisionTransformer:
    return make_state(depth=2).model


def config(**changes: Any) -> RunConfig:
    values = {
        "data.source": "nowhere", "data.img_size": (8, 12), "data.in_chans": 3, "data.num_classes": 5,
        "data.flip": False, "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 2, "model.num_heads": 2,
        "train.freeze": "backbone",
    }  # fmt: skip
    return keys.assemble("tiny", values | {key.replace("__", "."): value for key, value in changes.items()})


def test_head_on_features_equals_the_model_on_images(loader: TrainLoader, model: VisionTransformer) -> None:
    fixed = fixed_outputs(config(), model, loader, "fp32")
    assert fixed is not None
    assert fixed.trained is model.head
    for step in (0, 2, 4):
        images, features = loader.batch(step), fixed.batch(step)
        assert features.images.shape == (len(images.labels), 16)
        assert features.indices.tolist() == images.indices.tolist()
        assert features.labels.tolist() == images.labels.tolist()
        with torch.no_grad():
            expected = model.eval()(images.images)
            torch.testing.assert_close(model.head(features.images), expected, rtol=1e-5, atol=1e-5)


def test_features_are_computed_in_evaluation_mode(loader: TrainLoader, model: VisionTransformer) -> None:
    first = compute_features(model.train(), loader.each_once(4), "fp32")
    assert first.shape == (11, 16)
    assert torch.equal(first, compute_features(model.train(), loader.each_once(4), "fp32"))


@pytest.mark.parametrize(
    "changes", [{"train__freeze": "none"}, {"data__flip": True}, {"objective__teacher": "runs/other"}]
)
def test_outputs_that_would_change_are_not_precomputed(
    loader: TrainLoader, model: VisionTransformer, changes: dict[str, Any]
) -> None:
    assert fixed_outputs(config(**changes), model, loader, "fp32") is None


BLOCKS = {"train__freeze": "none", "train__freeze_blocks": 1, "train__reuse_frozen": True}


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_last_blocks_on_outputs_equal_the_model_on_images(
    loader: TrainLoader, make_state: Callable[..., TrainState], pool: str, precision: str
) -> None:
    model = trim_last_block(make_state(depth=2, pool=pool, rotary="axial").model)
    fixed = fixed_outputs(config(**BLOCKS), model, loader, precision)
    assert fixed is not None
    assert fixed.outputs.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    images, outputs = loader.batch(3), fixed.batch(3)
    assert outputs.indices.tolist() == images.indices.tolist()
    tolerance = 1e-5 if precision == "fp32" else 0.05
    with torch.no_grad():
        expected = model.eval()(images.images)
        torch.testing.assert_close(fixed.trained(outputs.images), expected, rtol=tolerance, atol=tolerance)
        features = fixed.views(images.indices)[own_view(model)]
        torch.testing.assert_close(features, model.pooled(images.images), rtol=tolerance, atol=tolerance)


def test_last_blocks_get_the_gradients_of_the_whole_model(
    loader: TrainLoader, make_state: Callable[..., TrainState]
) -> None:
    model = make_state(depth=2).model
    make_trainable(model, config(**BLOCKS).train)
    fixed = fixed_outputs(config(**BLOCKS), model, loader, "fp32")
    assert fixed is not None
    gradients = []
    for module, batch in ((model, loader.batch(1)), (fixed.trained, fixed.batch(1))):
        model.zero_grad()
        F.cross_entropy(module(batch.images), batch.labels).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert "encoder.blocks.1.attn.qkv.weight" in gradients[0]
    assert not any(name.startswith(("encoder.blocks.0", "tokenizer")) for name in gradients[0])
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"train__freeze_until": 0.5}, "train.freeze_until=0.5"),
        ({"model__pos_drop_rate": 0.1}, "model.pos_drop_rate=0.1"),
        ({"data__mixup_alpha": 0.3}, "data.mixup_alpha=0.3"),
    ],
)
def test_outputs_that_would_change_cannot_be_reused(changes: dict[str, Any], given: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"because {given}; leave that out, or train.reuse_frozen")):
        config(**BLOCKS, **changes)


def test_outputs_that_take_too_much_memory_are_not_precomputed(
    loader: TrainLoader, model: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = 11 * (config().model.num_patches + config().model.num_prefix_tokens) * 16
    monkeypatch.setattr("vitreous.training.step.features.MOST_OUTPUT_BYTES", 2 * values)
    assert fixed_outputs(config(**BLOCKS), model, loader, "bf16") is not None
    assert fixed_outputs(config(**BLOCKS), model, loader, "fp32") is None
