import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from vitreous.use.explain.anatomy.space import (
    path_through_depths,
    principal_components,
    principal_map,
    same_class_share,
    tsne_map,
)

FEATURES = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32) * np.arange(1, 8) + 3


def up_to_signs(points):
    return points * np.sign(points[np.abs(points).argmax(axis=0), np.arange(points.shape[1])])


def test_the_map_of_principal_components_is_that_of_scikit_learn():
    expected = PCA(2, svd_solver="full").fit(FEATURES.astype(np.float64))
    points, shares = principal_map(FEATURES)
    np.testing.assert_allclose(up_to_signs(points), up_to_signs(expected.transform(FEATURES)), atol=1e-4)
    np.testing.assert_allclose(shares, expected.explained_variance_ratio_, atol=1e-6)


@pytest.mark.parametrize("rows", [FEATURES[:1], FEATURES[:, :1], np.ones((5, 4), np.float32), FEATURES[:2]])
def test_few_or_equal_features_have_a_map_too(rows):
    points, shares = principal_map(rows)
    assert points.shape == (len(rows), 2)
    assert np.isfinite(points).all()
    assert np.isfinite(shares).all()
    components, _ = principal_components(rows, 2)
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-9)


def test_the_path_has_one_map_for_all_depths_without_what_all_images_share():
    features = FEATURES.reshape(10, 4, 7)
    points, shares = path_through_depths(features + 100 * np.arange(4)[:, None])
    fitted = PCA(2).fit((features - features.mean(axis=0)).reshape(40, 7))
    expected = fitted.transform((features - features.mean(axis=0)).reshape(40, 7))
    np.testing.assert_allclose(up_to_signs(points.reshape(40, 2)), up_to_signs(expected), atol=1e-3)
    np.testing.assert_allclose(shares, fitted.explained_variance_ratio_, atol=1e-5)


def test_tsne_keeps_neighbors_and_is_the_same_at_each_call():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(20, 16)) + 4 * rng.normal(size=16) for _ in range(3)]).astype(
        np.float32
    )
    points = tsne_map(features)
    assert trustworthiness(features, points, n_neighbors=5, metric="cosine") > 0.8
    np.testing.assert_array_equal(points, tsne_map(features))


@pytest.mark.parametrize("rows", [FEATURES[:3], np.ones((9, 4), np.float32), FEATURES[:, :1]])
def test_tsne_of_too_few_different_features_says_why(rows):
    assert tsne_map(rows) == "t-SNE needs at least 4 images with different features, of 2 or more numbers each"


def test_same_class_share_is_leave_one_out_accuracy_of_the_nearest_neighbor():
    labels = np.arange(40) % 3
    right = []
    for image in range(40):
        others = np.delete(np.arange(40), image)
        nearest = KNeighborsClassifier(1, metric="cosine").fit(FEATURES[others], labels[others])
        right.append(nearest.predict(FEATURES[image : image + 1])[0] == labels[image])
    assert same_class_share(FEATURES, labels) == pytest.approx(np.mean(right))
    sets = np.eye(3, dtype=bool)[labels]
    assert same_class_share(FEATURES, sets) == pytest.approx(np.mean(right))
    assert np.isnan(same_class_share(FEATURES[:1], labels[:1]))
