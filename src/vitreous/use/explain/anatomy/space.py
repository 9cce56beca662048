"""Features of images -> where they lie: principal components, t-SNE, similar images, the path through the blocks."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, is_multilabel
from vitreous.use.embed.embeddings import unit

Points = Float[np.ndarray, "images 2"]


def principal_components(
    rows: Float[np.ndarray, "rows width"], most: int
) -> tuple[Float[np.ndarray, "components width"], NDArray[np.float64]]:
    """Return at most `most` principal components of rows, and the share of the variance that each explains.

    Rows that are equal have no variance to explain; then the shares are 0.
    """
    from sklearn.decomposition import PCA

    count = min(most, *rows.shape)
    if not np.ptp(rows, axis=0).any():
        return np.eye(count, rows.shape[1]), np.zeros(count)
    is_tall = rows.shape[0] > rows.shape[1]
    fitted = PCA(count, svd_solver="covariance_eigh" if is_tall else "full").fit(rows.astype(np.float64))
    return fitted.components_, fitted.explained_variance_ratio_


def principal_map(features: Float[np.ndarray, "images width"]) -> tuple[Points, NDArray[np.float64]]:
    """Return features in their first two principal components, and the shares of variance; 0 for missing components."""
    components, shares = principal_components(features, 2)
    points = (features - features.mean(axis=0, dtype=np.float64)) @ components.T
    missing = 2 - len(components)
    return np.pad(points, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def path_through_depths(
    features: Float[np.ndarray, "images depths features"],
) -> tuple[Float[np.ndarray, "images depths 2"], NDArray[np.float64]]:
    """Return the features of all depths in their common first two principal components, and the shares of variance.

    The mean of each depth is subtracted: what all images share moves much more than what distinguishes them.
    """
    centered = features - features.mean(axis=0, dtype=np.float64)
    points, shares = principal_map(centered.reshape(-1, features.shape[2]))
    return points.reshape(*features.shape[:2], 2), shares


def tsne_map(features: Float[np.ndarray, "images features"], seed: int = 0) -> Points | str:
    """Return the features in two dimensions by t-SNE, or why that is not possible.

    Cosines are compared, as for similar images. Perplexity is 30, or a third of the images if that is less.

    Source:
        van der Maaten & Hinton 2008, by scikit-learn; initialized by principal components.
    """
    from sklearn.manifold import TSNE

    vectors = unit(features)
    if len(np.unique(vectors, axis=0)) < 4 or features.shape[1] < 2:
        return "t-SNE needs at least 4 images with different features, of 2 or more numbers each"
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(vectors)
    return points.astype(np.float64)


def same_class_share(features: Float[np.ndarray, "images features"], labels: LabelArray) -> float:
    """Return the share of images whose most similar other image, by cosine, has the same labels; NaN for one image."""
    if len(features) < 2:
        return float("nan")
    vectors = unit(features)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    equal = labels == labels[similarity.argmax(axis=1)]
    return float((equal.all(axis=1) if is_multilabel(labels) else equal).mean())
