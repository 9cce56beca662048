"""Features of images -> Embeddings: nearest images, near-duplicates and clusters, by cosine similarity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.copies import members
from vitreous.data.doctor.cropped import find_cropped_duplicates
from vitreous.data.doctor.near_duplicates import ColorThumbnails, GrayThumbnails
from vitreous.errors import ConfigError
from vitreous.wording import plural


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of images, one row for each image that could be read.

    Attributes:
        names: Path of each image, or its number among the given ones, `[n]`.
        vectors: The input of the model's head, float32, `[n, features]`. Rows are not normalized; the methods compare
            them by cosine similarity, which does not depend on their length.
        positions: Position of each row's image among the given ones, `[n]`.
        thumbnails: Gray and color thumbnails, by which near-duplicates are found.
        errors: For each image that could not be read, its name and the reason.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    positions: NDArray[np.int64]
    thumbnails: tuple[GrayThumbnails, ColorThumbnails]
    errors: tuple[str, ...] = ()

    @property
    def unit_vectors(self) -> NDArray[np.float32]:
        """The vectors with length 1, so that products are cosine similarities; a zero vector stays zero."""
        return unit(self.vectors)

    def nearest(self, queries: NDArray[np.float32], top: int = 10) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the images that are most similar to each query, most similar first.

        All pairs are compared, in blocks of bounded size. Queries are vectors of the same model, `[queries, features]`.
        At most all images are found.

        Returns:
            Rows of the nearest images, and their cosine similarities, both `[queries, top]`.

        Raises:
            ConfigError: `top` is below 1, there are no images, or the vectors have a different length.
        """
        from sklearn.neighbors import NearestNeighbors

        check_top(top)
        if not len(self.names):
            raise ConfigError("images=0: none could be read; give at least one readable image")
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ConfigError(
                f"queries={list(queries.shape)}: must be [queries, {self.vectors.shape[1]}]; use vectors of this model"
            )
        # For unit vectors, squared Euclidean distance is 2 - 2 cosine, and scikit-learn's search is faster with it.
        index = NearestNeighbors(n_neighbors=min(top, len(self.names)), algorithm="brute").fit(self.unit_vectors)
        distances, rows = index.kneighbors(unit(queries))
        return rows.astype(np.int64), 1.0 - distances.astype(np.float64) ** 2 / 2.0

    def near_duplicates(self) -> list[NDArray[np.int64]]:
        """Group images that are probably versions of one picture: re-encoded, resized, brightened or cropped.

        Pixels are compared, not features: for features, two versions of a picture and two
        similar pictures are alike.

        Returns:
            Rows of each group of two or more images, in the order of their first rows. They are a guess: check them.
        """
        return list(members(find_cropped_duplicates(*self.thumbnails)))

    def clusters(self, count: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Divide the images into clusters by k-means on unit vectors.

        Every image gets a cluster, and memory grows with the number of images, not with its square. Methods that find
        the number of clusters by density, such as HDBSCAN, leave many images without one.

        `count` is from 1 to the number of images. The same seed gives the same clusters.

        Returns:
            Cluster of each image, `[n]`, and the row of the image nearest to the center of each cluster, `[count]`;
            cluster 0 is the largest.

        Raises:
            ConfigError: There are fewer images than clusters.
        """
        from sklearn.cluster import KMeans

        check_clusters(count, len(self.names))
        fitted = KMeans(count, n_init=3, random_state=seed).fit(self.unit_vectors)
        by_size = np.argsort(-np.bincount(fitted.labels_, minlength=count), kind="stable")
        typical = fitted.transform(self.unit_vectors).argmin(axis=0)
        return np.argsort(by_size)[fitted.labels_].astype(np.int64), typical[by_size].astype(np.int64)


def check_top(top: int) -> None:
    """Raise ConfigError unless it is a number of images to find."""
    if top < 1:
        raise ConfigError(f"top={top}: must be at least 1; use e.g. 10")


def check_clusters(count: int, num_images: int) -> None:
    """Raise ConfigError unless this number of images can be divided into `count` clusters."""
    if not 1 <= count <= num_images:
        raise ConfigError(
            f"clusters={count}: {plural(num_images, 'image')} can be divided into 1 to {num_images:,} clusters; use a "
            "number in this range"
        )


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows with length 1; a row of zeros stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
