"""Embeddings: nearest images equal those of a naive comparison; every image gets a cluster."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from vitreous.data.doctor.near_duplicates import SIDE_PX
from vitreous.errors import ConfigError
from vitreous.use.embed.embeddings import Embeddings


def embeddings(vectors: np.ndarray) -> Embeddings:
    count, side = len(vectors), SIDE_PX // 4
    blank = np.zeros((count, SIDE_PX, SIDE_PX), np.uint8), np.zeros((count, side, side, 3), np.uint8)
    names = tuple(f"{number}.png" for number in range(count))
    return Embeddings(names, vectors.astype(np.float32), np.arange(count), blank)


def test_nearest_images_are_those_of_scikit_learns_cosine_and_of_a_naive_product() -> None:
    random = np.random.default_rng(0)
    found = embeddings(random.normal(size=(300, 17)) * random.uniform(0.1, 9, (300, 1)))
    queries = random.normal(size=(5, 17)).astype(np.float32)
    rows, similarities = found.nearest(queries, 7)
    distance, expected = NearestNeighbors(n_neighbors=7, metric="cosine").fit(found.vectors).kneighbors(queries)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, 1 - distance, atol=1e-6)
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, found.vectors))
    np.testing.assert_array_equal(rows, np.argsort(-(one @ other.T), axis=1)[:, :7])


def test_an_image_is_nearest_to_itself_with_similarity_1_whatever_the_length_of_its_vector() -> None:
    found = embeddings(np.random.default_rng(1).normal(size=(9, 4)))
    rows, similarities = found.nearest(found.vectors * 1e3, 1)
    assert rows[:, 0].tolist() == list(range(9))
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


def test_more_images_than_there_are_give_all_of_them() -> None:
    rows, _ = embeddings(np.eye(3)).nearest(np.ones((2, 3), np.float32), 10)
    assert rows.shape == (2, 3)


def test_a_vector_of_zeros_is_similar_to_nothing_and_not_nan() -> None:
    found = embeddings(np.eye(4)[:3])
    assert np.isfinite(embeddings(np.zeros((2, 4))).unit_vectors).all()
    assert found.nearest(np.zeros((1, 4), np.float32), 3)[1].max() <= 0.5


@pytest.mark.parametrize(
    ("queries", "top", "line"),
    [
        (np.ones((1, 3)), 0, "top=0: must be at least 1; use e.g. 10"),
        (np.ones((1, 5)), 2, "queries=[1, 5]: must be [queries, 3]; use vectors of this model"),
        (np.ones(3), 2, "queries=[3]: must be [queries, 3]; use vectors of this model"),
    ],
)
def test_impossible_queries_are_refused(queries: np.ndarray, top: int, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        embeddings(np.eye(3)).nearest(queries.astype(np.float32), top)
    assert str(caught.value) == line


def test_clusters_separate_three_groups_and_number_the_largest_0() -> None:
    random = np.random.default_rng(2)
    truth = np.repeat([0, 1, 2], [20, 50, 30])
    found = embeddings(np.eye(3)[truth] * random.uniform(1, 5, (100, 1)) + 0.05 * random.normal(size=(100, 3)))
    numbers, typical = found.clusters(3)
    assert adjusted_rand_score(truth, numbers) == 1
    assert np.bincount(numbers).tolist() == [50, 30, 20]
    assert numbers[typical].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.clusters(3)[0], numbers)


@pytest.mark.parametrize("count", [0, 4])
def test_impossible_numbers_of_clusters_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"^clusters={count}: 3 images can be divided into 1 to 3 clusters; use a "):
        embeddings(np.eye(3)).clusters(count)
