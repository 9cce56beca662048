from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.data.augmentation.augment import Augment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import TrainLoader
from vitreous.data.pixels.store import MemoryStore
from vitreous.model.vit import VisionTransformer
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Supervised
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.step.features import compute_features, feature_batches
from vitreous.training.step.state import TrainState

TASK = Supervised(CrossEntropy())


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
    batches = feature_batches(config(), TASK, model, loader, "fp32")
    assert batches is not None
    for step in (0, 2, 4):
        images, features = loader.batch(step), batches(step, 0)
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


@pytest.mark.parametrize("changes", [{"train__freeze": "none"}, {"data__flip": True}])
def test_features_that_would_change_are_not_precomputed(
    loader: TrainLoader, model: VisionTransformer, changes: dict[str, Any]
) -> None:
    assert feature_batches(config(**changes), TASK, model, loader, "fp32") is None


def test_features_are_not_used_for_a_task_that_may_need_images(loader: TrainLoader, model: VisionTransformer) -> None:
    class Other(Supervised):
        pass

    assert feature_batches(config(), Other(CrossEntropy()), model, loader, "fp32") is None
