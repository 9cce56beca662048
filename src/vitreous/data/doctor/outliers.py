"""Features -> images that are unlike all others: they may not belong to the data set.

An image is an outlier if its distance to its 20th nearest image is far above that of most images. With fewer neighbors,
a handful of foreign images of one kind would hide each other. Distances are one minus cosine similarity; their
logarithm is compared with its median, in units of its scaled median absolute deviation. The limit of 3 was chosen on
clothing-96px and verified on sign-digits (`benchmarks/doctor_pretrained.py`).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.findings import Finding, Namer
from vitreous.seeding import derive, permutation
from vitreous.wording import plural

NUM_NEIGHBORS = 20
LEAST_IMAGES = 100
"""Smaller sets have no typical distance."""
LIMIT = 3.0
"""Score from which an image is reported."""
_MOST_COMPARED = 10_000
"""Each image is compared with at most this many, drawn at random."""
_TO_STANDARD_DEVIATION = 1.4826


def outlier_scores(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far each image is from the others, in robust standard deviations, `[n]`; above 3 is an outlier.

    All scores are 0 if there are fewer than `LEAST_IMAGES`.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    if len(features) < LEAST_IMAGES:
        return np.zeros(len(features))
    vectors = normalize(features)
    compared = vectors[permutation(derive(0, "outliers"), len(vectors))[:_MOST_COMPARED]]
    # The nearest of all is the image itself, unless it was not drawn.
    index = NearestNeighbors(n_neighbors=NUM_NEIGHBORS + 1, algorithm="brute").fit(compared)
    distance = index.kneighbors(vectors)[0][:, -1].astype(np.float64)
    logarithm = np.log(np.maximum(distance, 1e-6))
    above = logarithm - np.median(logarithm)
    return above / max(_TO_STANDARD_DEVIATION * float(np.median(np.abs(above))), 1e-6)


def outlier_findings(
    features: NDArray[np.float32], positions: NDArray[np.int64], basis: str, namer: Namer
) -> Iterator[Finding]:
    """Report images that are unlike all others, if there are any.

    Each image has a row of features, and a position in the summaries. `basis` is what the features are, e.g. `the
    features of dino.safetensors`.
    """
    scores = outlier_scores(features)
    found = np.argsort(-scores, kind="stable")[: int((scores > LIMIT).sum())]
    if len(found):
        yield Finding(
            kind="outliers",
            severity="note",
            title=f"{plural(len(found), 'image is', 'images are')} unlike all others",
            detail=f"By {basis}, {'it is' if len(found) == 1 else 'they are'} unusually far from the "
            f"{NUM_NEIGHBORS} nearest images. This is a guess: rare but valid images look the same.",
            advice="Look at them, the most unusual first, and remove those that do not belong to the data set.",
            share=namer.share(len(found)),
            samples=namer.singles(positions[found]),
        )
