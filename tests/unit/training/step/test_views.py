"""Layers and pools of pretrained features, and the first model that ends at one of them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.data.loader import Batch
from vitreous.model.build import build_model
from vitreous.model.change.last_blocks import LastBlocks
from vitreous.model.change.lora import add_lora, merge_lora
from vitreous.model.change.trim import trim_last_block
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.step import views
from vitreous.training.step.views import (
    View,
    choose_view,
    compare_views,
    compute_views,
    ending_at,
    own_view,
    pooled,
    views_of,
)
from vitreous.training.weights.fitted_head import fit_head

CONFIG = ModelConfig(img_size=(12, 20), patch_size=4, in_chans=3, num_classes=3, embed_dim=16, depth=6, num_heads=2,
                     num_registers=2, layer_scale=0.5)  # fmt: skip


def made(**changes: object) -> VisionTransformer:
    model = build_model(replace(CONFIG, **changes), generator=torch.Generator().manual_seed(2))  # type: ignore[arg-type]
    return trim_last_block(model).eval()


def batches(num: int = 7) -> list[Batch]:
    images = torch.randn(num, 3, 12, 20, generator=torch.Generator().manual_seed(5))
    return [Batch(part, torch.zeros(len(part)).long(), np.arange(len(part))) for part in images.split(4)]


@pytest.mark.parametrize("changes", [
    {}, {"pool": "mean"}, {"pool": "mean", "class_token": True}, {"relative_bias": True}, {"rotary": "axial"},
    {"pool": "token_mean", "num_registers": 0},
])  # fmt: skip
def test_model_that_ends_earlier_has_the_features_of_its_view(changes: dict[str, object]) -> None:
    model, images = made(**changes), torch.cat([batch.images for batch in batches()])
    compared = views_of(model)
    assert compared[0] == own_view(model)
    assert {view.depth for view in compared[1:]} == {5, 4}
    found, labels = compute_views(model, images, "fp32", compared), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    torch.testing.assert_close(found[compared[0]], model.pooled(images))
    for view in compared[1:]:
        head, shorter = fit_head(found[view], labels, 3, np.arange(len(labels))), ending_at(model, view)
        head.copy_into(shorter.head)
        assert (shorter.config.depth, shorter.config.pool) == (view.depth, view.pool)
        torch.testing.assert_close(shorter(images), found[view] @ head.weight.T + head.bias, atol=1e-4, rtol=1e-4)


def test_stored_outputs_of_frozen_blocks_give_the_same_views() -> None:
    model = made()
    last = LastBlocks(model, 4)
    found = compute_views(model, torch.cat([batch.images for batch in batches()]), "fp32", views_of(model, [4]))
    tokens = torch.cat([last.entering(batch.images) for batch in batches()])
    for pool in ("mean", "token_mean"):
        torch.testing.assert_close(pooled(model, tokens, pool), found[View(4, pool)])


def late_after(num: int) -> Callable[[int], bool]:
    return lambda num_seen: num_seen >= num


@pytest.mark.parametrize("keeps_own", [True, False])
def test_only_the_best_view_is_computed_after_the_first_images(
    keeps_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = made(), list[int]()
    best = View(4, "mean")
    monkeypatch.setattr(views, "_MOST_COMPARED", 4)
    monkeypatch.setattr(views, "choose_view", lambda found, labels, families: best)
    model.encoder.blocks[5].register_forward_hook(lambda *_: seen.append(1))
    found, labels = compare_views(
        model, batches(12), "fp32", views_of(model), np.arange(12), keeps_own=keeps_own, is_late=late_after(99)
    )
    images = torch.cat([batch.images for batch in batches(12)])
    assert set(found) == ({best, own_view(model)} if keeps_own else {best})
    assert len(labels) == 12
    torch.testing.assert_close(found[best], compute_views(model, images, "fp32", [best])[best])
    assert len(seen) == (3 if keeps_own else 1)  # batches of four images that went through the last block


def test_features_end_when_the_time_is_up() -> None:
    model = made()
    found, labels = compare_views(
        model, batches(12), "fp32", views_of(model), np.arange(12), keeps_own=True, is_late=late_after(8)
    )
    assert len(labels) == 8
    assert all(len(features) == 8 for features in found.values())


def test_updates_of_lora_are_merged_before_the_model_ends_earlier() -> None:
    model = made()
    expected = ending_at(model, View(4, "mean"))
    add_lora(model, rank=2, alpha=4.0, generator=torch.Generator().manual_seed(1))
    shorter = ending_at(merge_lora(model), View(4, "mean"))
    images = batches()[0].images
    torch.testing.assert_close(shorter.pooled(images), expected.pooled(images))


@pytest.mark.parametrize("changes", [{"pool": "map"}, {"fc_norm": True}, {"distill_token": True}])
def test_models_that_cannot_end_earlier_have_only_their_own_view(changes: dict[str, object]) -> None:
    model = made(**changes)
    assert views_of(model) == [own_view(model)]


def test_the_view_that_separates_the_classes_is_chosen() -> None:
    generator, labels = torch.Generator().manual_seed(0), torch.arange(60) % 3
    noise = {view: torch.randn(60, 5, generator=generator) for view in (View(6, "token"), View(5, "mean"))}

    def telling(strength: float) -> Tensor:
        return torch.randn(60, 5, generator=generator) + strength * torch.eye(5)[labels]

    found = {**noise, View(4, "mean"): telling(3.0), View(4, "token_mean"): telling(9.0)}
    assert choose_view(found, labels, np.arange(60)) == View(4, "token_mean")
    assert choose_view({view: telling(9.0) for view in noise}, labels, np.arange(60)) == View(6, "token")


def test_a_view_that_shows_patients_is_not_better_than_one_that_shows_the_class() -> None:
    generator = torch.Generator().manual_seed(0)
    patients = torch.arange(60) // 5
    labels = torch.randint(0, 2, (12,), generator=generator)[patients]
    found = {
        View(6, "token"): 1.5 * torch.eye(2)[labels] + torch.randn(60, 2, generator=generator),
        View(5, "mean"): torch.randn(12, 30, generator=generator)[patients],
    }
    assert choose_view(found, labels, np.arange(60)) == View(5, "mean")
    assert choose_view(found, labels, patients.numpy()) == View(6, "token")
