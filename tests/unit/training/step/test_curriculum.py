from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.recipe import keys
from vitreous.training.step.curriculum import Curriculum, probes_fixed_features
from vitreous.training.step.state import TrainState

TINY = {
    "data.source": "nowhere", "data.img_size": (48, 24), "data.in_chans": 3, "data.num_classes": 5,
    "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 3, "model.num_heads": 2,
}  # fmt: skip


def curriculum(**changes: Any) -> Curriculum:
    return Curriculum(keys.assemble("tiny", TINY | {key.replace("__", "."): value for key, value in changes.items()}))


def test_nothing_changes_by_default() -> None:
    assert [(start, end) for start, end, _ in curriculum().stretches()] == [(0.0, 1.0)]


def test_images_grow_in_four_sizes_that_are_multiples_of_the_patch_size() -> None:
    growing = curriculum(train__start_img_size=(24, 8), train__resolution_until=0.6)
    sizes = [growing.stage(progress).img_size for progress in (0.0, 0.19, 0.21, 0.39, 0.41, 0.59, 0.6, 1.0)]
    assert sizes == [(24, 8), (24, 8), (32, 12), (32, 12), (40, 20), (40, 20), (48, 24), (48, 24)]
    assert all(side % 4 == 0 for size in sizes for side in size)


def test_patches_are_dropped_until_the_configured_progress() -> None:
    dropping = curriculum(model__patch_drop_rate=0.5, train__patch_drop_until=0.75)
    assert [dropping.stage(progress).patch_drop_rate for progress in (0.0, 0.74, 0.75, 1.0)] == [0.5, 0.5, 0.0, 0.0]


def test_layers_that_are_frozen_for_the_whole_run_are_frozen_at_its_end() -> None:
    assert curriculum(train__freeze="backbone").stage(1.0).is_frozen
    assert not curriculum(train__freeze="backbone", train__freeze_until=0.3).stage(0.3).is_frozen
    assert not curriculum().stage(0.0).is_frozen


def test_stretches_are_contiguous_and_neighbors_differ() -> None:
    stretches = curriculum(
        train__start_img_size=(24, 8), train__freeze_blocks=2, train__freeze_until=0.5, model__patch_drop_rate=0.25,
        train__patch_drop_until=0.6,
    ).stretches()  # fmt: skip
    assert [start for start, _, _ in stretches[1:]] == [end for _, end, _ in stretches[:-1]]
    assert (stretches[0][0], stretches[-1][1]) == (0.0, 1.0)
    assert [end for _, end, _ in stretches] == pytest.approx([0.2, 0.4, 0.5, 0.6, 1.0])
    assert all(one[2] != other[2] for one, other in pairwise(stretches))


def test_images_are_scaled_like_pillow_does() -> None:
    image = torch.rand(48, 24, generator=torch.Generator().manual_seed(0))
    resized = curriculum(train__start_img_size=(24, 8)).resized(image.expand(2, 3, 48, 24), 0.0)
    expected = Image.fromarray(image.numpy()).resize((8, 24), Image.Resampling.BILINEAR)
    assert resized.shape == (2, 3, 24, 8)
    torch.testing.assert_close(resized[1, 2], torch.from_numpy(np.array(expected)), rtol=0, atol=1e-5)


def test_model_accepts_small_images_in_training_and_the_average_does_not(
    make_state: Callable[..., TrainState],
) -> None:
    state = make_state(img_size=(48, 24))
    growing = curriculum(train__start_img_size=(24, 8))
    state.model.train()
    growing.enter(state.model, 0.0)
    images = torch.randn(2, 3, 48, 24)
    state.model(growing.resized(images, 0.0)).sum().backward()
    assert state.model.position.grid.grad is not None
    assert state.model(images).shape == (2, 5)
    with pytest.raises(ValueError, match="24x8 px"):
        state.ema.model(growing.resized(images, 0.0))


@pytest.mark.parametrize(
    ("changes", "fixed"),
    [
        ({}, True),
        ({"data__flip": True}, False),
        ({"data__mixup_alpha": 0.2}, False),
        ({"data__min_crop_area": 0.5}, False),
        ({"train__freeze_until": 0.5}, False),
        ({"train__freeze": "none", "train__freeze_blocks": 3}, False),
        ({"train__start_img_size": (24, 8)}, False),
    ],
)
def test_features_are_fixed_only_without_augmentation_mixing_and_unfreezing(
    changes: dict[str, Any], fixed: bool
) -> None:
    config = curriculum(**{"data__flip": False, "train__freeze": "backbone", **changes}).config
    assert probes_fixed_features(config) is fixed
