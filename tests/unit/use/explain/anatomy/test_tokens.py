import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from tests.unit.use.explain.anatomy.models import VARIANTS, draw_images, make_model

from vitreous.model.change.merge import Merged
from vitreous.model.taps import taps
from vitreous.use.explain.anatomy.tokens import (
    OUTLIER_FACTOR,
    Observed,
    _between_all,
    attention_distance,
    norm_outliers,
    observe,
    token_similarity,
)


def naive_distance(maps, rows, columns, prefix, side):
    """Compute the attention distance of one head by loops, in float64."""
    total = 0.0
    for query in range(rows * columns):
        weighted = weight = 0.0
        for key in range(rows * columns):
            down, across = query // columns - key // columns, query % columns - key % columns
            attention = float(maps[prefix + query, prefix + key])
            weighted += attention * side * math.hypot(down, across)
            weight += attention
        total += weighted / weight
    return total / (rows * columns)


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_attention_distance_equals_a_loop_over_queries_and_keys(prefix):
    maps = torch.rand(2, 3, prefix + 6, prefix + 6, generator=torch.Generator().manual_seed(0)).softmax(dim=3)
    found = attention_distance(maps, (2, 3), prefix, 5)
    expected = [[naive_distance(head, 2, 3, prefix, 5) for head in image] for image in maps.double()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_a_head_that_attends_only_to_the_query_or_the_class_token_has_distance_0():
    itself = torch.eye(7)[None, None]
    to_class_token = torch.zeros(1, 1, 7, 7)
    to_class_token[..., 0] = 1.0
    for maps in (itself, to_class_token):
        assert attention_distance(maps, (2, 3), 1, 4).item() == 0.0


def test_similarity_of_patches_is_the_mean_cosine_over_all_pairs():
    patches = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = [cosine_similarity(image)[~np.eye(5, dtype=bool)].mean() for image in patches.double().numpy()]
    torch.testing.assert_close(token_similarity(patches), torch.tensor(expected, dtype=torch.float32))
    equal = patches[:, :1].expand(-1, 5, -1) * torch.tensor([1.0, 2, 3, 4, 5]).view(1, 5, 1)
    torch.testing.assert_close(token_similarity(equal), torch.ones(3))
    assert token_similarity(patches[:, :1]).isnan().all()


def test_outliers_are_patches_with_more_than_3_times_the_median_norm_of_their_depth():
    norms = np.random.default_rng(0).uniform(0.8, 1.2, (4, 3, 2, 5)).astype(np.float32)
    norms[:, 2] *= 50.0  # a deeper layer has larger norms, which is no outlier
    norms[1, 0, 1, 3], norms[3, 2, 0, 2], norms[0, 1, 0, 0] = 3.7, 500.0, 2.2
    found = norm_outliers(norms)
    assert np.argwhere(found).tolist() == [[1, 0, 1, 3], [3, 2, 0, 2]]
    for depth in range(3):
        expected = norms[:, depth] > OUTLIER_FACTOR * np.median(norms[:, depth])
        np.testing.assert_array_equal(found[:, depth], expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_can_be_observed_without_changing_it(variant):
    model = make_model(**VARIANTS[variant])
    images, (rows, columns) = draw_images(model), model.config.grid_size
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = observe(model, images)
    depth = model.config.depth
    assert found.distances.shape == (3, depth, 3)
    assert found.norms.shape == (3, depth + 1, rows, columns)
    assert found.features.shape == (3, depth + 1, model.num_features)
    assert all(np.isfinite(value).all() for value in (found.distances, found.norms, found.features, found.logits))
    assert np.isnan(found.similarity).all() if variant == "one patch" else np.isfinite(found.similarity).all()
    assert (found.distances <= model.config.patch_size * math.hypot(rows, columns)).all()
    with torch.no_grad():
        np.testing.assert_allclose(found.features[:, -1], model.pooled(images), atol=1e-4)
        np.testing.assert_allclose(found.logits, model(images), atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("variant", ["class token", "registers", "merged", "embed norm"])
def test_images_are_observed_in_a_batch_as_one_by_one(variant):
    model = make_model(**VARIANTS[variant])
    images = draw_images(model)
    together, singly = observe(model, images), Observed.joined([observe(model, image[None]) for image in images])
    for name in ("distances", "similarity", "norms", "features", "logits"):
        np.testing.assert_allclose(getattr(together, name), getattr(singly, name), atol=1e-4)


def test_depths_are_the_tokens_before_the_first_block_and_after_each():
    model = make_model(num_registers=2, embed_norm=True)
    images = draw_images(model)
    found = observe(model, images)
    with torch.no_grad(), taps(model, "encoder.norm_pre", "encoder.blocks.*", "encoder.blocks.*.attn.maps") as seen:
        model(images)
    for depth, name in enumerate(("encoder.norm_pre", "encoder.blocks.0", "encoder.blocks.1")):
        patches = seen[name][:, 3:].double()
        expected = patches.square().sum(dim=2).sqrt().view(3, 2, 3)
        np.testing.assert_allclose(found.norms[:, depth], expected, rtol=1e-5)
        cosines = [cosine_similarity(image)[~np.eye(6, dtype=bool)].mean() for image in patches.numpy()]
        np.testing.assert_allclose(found.similarity[:, depth], cosines, atol=1e-5)
    for block in range(2):
        maps = seen[f"encoder.blocks.{block}.attn.maps"].double()
        expected = [[naive_distance(head, 2, 3, 3, 4) for head in image] for image in maps]
        np.testing.assert_allclose(found.distances[:, block], expected, rtol=1e-4)


def test_attention_of_merged_tokens_is_shared_by_their_patches():
    source = torch.tensor([[0, 1, 2, 1, 2, 2, 1]])
    merged = Merged(source, torch.tensor([[1.0, 3.0, 3.0]]))
    maps = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=3)
    found = _between_all(maps, merged)
    torch.testing.assert_close(found.sum(dim=3), torch.ones(1, 2, 7))
    for head in range(2):
        for query in range(7):
            for key in range(7):
                left, right = source[0, query], source[0, key]
                expected = maps[0, head, left, right] / (source[0] == right).sum()
                torch.testing.assert_close(found[0, head, query, key], expected)


def test_merged_patches_count_with_the_token_that_they_were_merged_into():
    model = make_model(patch_size=2, merge=3)
    images = draw_images(model)
    found = observe(model, images)
    with torch.no_grad():
        blocks = model.forward_intermediates(images, output_fmt="NLC", intermediates_only=True)
    for depth, patches in enumerate(blocks, start=1):
        np.testing.assert_allclose(found.norms[:, depth].reshape(3, -1), patches.norm(dim=2), rtol=1e-4)
    assert len({round(float(norm), 4) for norm in found.norms[0, -1].flat}) <= 24 - 3
