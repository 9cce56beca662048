"""Features of images -> where they lie: principal components, t-SNE, similar images, the path through the blocks."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, is_multilabel
from vitreous.use.embed.embeddings import unit

Points = Float[np.ndarray, "images 2"]


def principal_map(features: Float[np.ndarray, "rows features"]) -> tuple[Points, NDArray[np.float64]]:
    """Return the first two principal components of features, and the share of the variance that each explains.

    The second is 0 if there are fewer than two components.
    """
    from sklearn.decomposition import PCA

    rows = features.astype(np.float64)
    fitted = PCA(min(2, *rows.shape), svd_solver="full").fit(rows)
    missing = 2 - fitted.n_components_
    shares = np.nan_to_num(fitted.explained_variance_ratio_)  # equal rows have no variance
    return np.pad(fitted.transform(rows), ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def path_through_depths(
    features: Float[np.ndarray, "images depths features"],
) -> tuple[Float[np.ndarray, "images depths 2"], NDArray[np.float64]]:
    """Return the features of all depths in their common first two principal components, and the shares of variance."""
    points, shares = principal_map(features.reshape(-1, features.shape[2]))
    return points.reshape(*features.shape[:2], 2), shares


def tsne_map(features: Float[np.ndarray, "images features"], seed: int = 0) -> Points | str:
    """Return the features in two dimensions by t-SNE, or why that is not possible.

    Cosines are compared, as for similar images. Perplexity is 30, or a third of the images if that is less.

    Source:
        van der Maaten & Hinton 2008, by scikit-learn; initialized by principal components.
    """
    from sklearn.manifold import TSNE

    if len(features) < 4 or not features.std(axis=0).any():
        return f"t-SNE needs at least 4 different images; there are {len(np.unique(features, axis=0))}"
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(unit(features))
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
