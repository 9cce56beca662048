import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from tests.unit.use.explain.anatomy.models import make_model

from vitreous.use.explain.anatomy.weights import patch_filters, position_similarity


def test_filters_are_the_principal_components_of_the_rows_of_the_projection():
    model = make_model()
    found = patch_filters(model, most=5)
    rows = model.tokenizer.proj.weight.detach().double().numpy()
    expected = PCA(5, svd_solver="full").fit(rows)
    assert found.images.shape == (5, 3, 4, 4)
    flat = found.images.reshape(5, -1)
    signs = np.sign((flat * expected.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(flat * signs, expected.components_, atol=1e-9)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, atol=1e-9)
    assert found.what == "the projection of patches of 4x4 px"


def test_pixels_of_a_filter_are_where_the_patch_has_them():
    model = make_model()
    model.tokenizer.proj.weight.data.zero_()
    pattern = torch.zeros(3, 4, 4)
    pattern[2, 1, 3] = 1.0  # blue, second row, last column
    images = pattern.repeat(1, 1, 2, 3)
    model.tokenizer.proj.weight.data[7] = (model.tokenizer(images)[0, 0] * 0)[7] + pattern.flatten()
    assert model.tokenizer(images)[0, 0, 7] > 0.9 + model.tokenizer.proj.bias[7]
    strongest = np.abs(patch_filters(model, most=1).images[0])
    assert np.unravel_index(strongest.argmax(), strongest.shape) == (2, 1, 3)


def test_filters_after_a_norm_include_its_scale():
    model = make_model(stem="normed")
    before = patch_filters(model).images[0]
    model.tokenizer.norm.weight.data[:] = 0.0
    model.tokenizer.norm.weight.data[5] = 1.0
    only = np.abs(patch_filters(model).images[0]).reshape(-1)
    assert only.argmax() == 5
    assert only.sum() == pytest.approx(only.max())
    assert np.abs(before).reshape(-1).max() < 0.9


def test_filters_of_a_shifted_tokenizer_are_those_of_the_image_itself():
    model = make_model(stem="shifted")
    model.tokenizer.proj.weight.data[:, 3 * 16 :] = 100.0  # the shifted copies
    assert patch_filters(model).images.shape[1:] == (3, 4, 4)
    assert patch_filters(model, most=24).shares.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("stem", "width"), [("conv", 8), ("cct", 64)])
def test_filters_of_a_convolutional_stem_are_those_of_its_first_convolution(stem, width):
    found = patch_filters(make_model(stem=stem))
    assert found.images.shape[1:] == (3, 3, 3)
    assert found.what == "the first convolution of 3x3 px"
    assert (found.count, len(found.images)) == (width, min(width, 27))


def test_equal_filters_have_no_variance():
    model = make_model()
    model.tokenizer.proj.weight.data[:] = 1.0
    found = patch_filters(model)
    assert found.shares.sum() == 0
    assert np.isfinite(found.images).all()


def test_similarity_of_positions_equals_that_of_scikit_learn():
    model = make_model()
    grid = model.position.grid.detach().double().numpy()
    expected = cosine_similarity(grid.reshape(6, -1)).reshape(2, 3, 2, 3)
    np.testing.assert_allclose(position_similarity(model), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position": "none"}, "the model has no position embeddings"),
        ({"position": "none", "rotary": "axial"}, "positions rotate the queries and keys of attention (axial)"),
        ({"position": "none", "relative_bias": True}, "positions are a learned bias on the attention scores"),
        ({"position": "sincos2d"}, "the position embeddings are fixed waves (sincos2d), so nothing is learned"),
        ({"img_size": (4, 4)}, "an image is one patch, so there is nothing to compare"),
    ],
)
def test_models_without_a_table_of_positions_say_why(changes, reason):
    assert str(position_similarity(make_model(**changes))).startswith(reason)
