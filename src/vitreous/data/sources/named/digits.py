"""scikit-learn -> its data set `digits`: 1,797 handwritten digits, 8x8 px, gray."""

import numpy as np

from vitreous.data.sources.source import ArraySource


def open_digits() -> ArraySource:
    """Open the data set `digits`: 1,797 images, whose gray levels from 0 to 16 are stretched to 0..255.

    It has no splits; a quarter is held out for testing, as in scikit-learn's examples.

    Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI; the test set of the original.
    """
    from sklearn.datasets import load_digits  # takes a second to import, so only this data set imports it

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return ArraySource(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        images=images,
        labels=labels,
        splits=np.full(len(labels), ""),
        test_ratio=0.25,
    )
