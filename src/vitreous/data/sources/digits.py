"""scikit-learn -> its 1,797 handwritten digits, 8x8 px, gray."""

import numpy as np

from vitreous.data.sources.source import ArraySource


def open_digits() -> ArraySource:
    """The set `digits`. It brings no split and asks for a quarter as test, as scikit-learn's own examples hold out.

    Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI; the test part of the original.

    Returns:
        1,797 images; the original grey levels 0..16 stretched to 0..255.
    """
    from sklearn.datasets import load_digits  # takes a second to import, which only this set should cost

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return ArraySource(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        images=images,
        labels=labels,
        splits=[""] * len(labels),
        test_ratio=0.25,
    )
