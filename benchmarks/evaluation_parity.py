"""The same probabilities and classes -> do other libraries compute the same numbers as `vitreous evaluate`?

    python -m venv .venv-parity && .venv-parity/bin/pip install mapie
    PYTHONPATH=src .venv-parity/bin/python benchmarks/evaluation_parity.py --only mapie

There is one function per library, which yields a line per comparison: how many values agree, of how many. It imports
only parts of vitreous that do not need torch.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np

from vitreous.use.evaluate.sets import limits

LEVELS = (0.8, 0.9, 0.95)
Row = tuple[str, int, int]
"""What is compared, number of values that agree, number of values."""


def draw(num_images: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities `[n, classes]`, and classes drawn from them."""
    generator = np.random.default_rng(seed)
    shares = np.exp(2 * generator.normal(size=(num_images, num_classes)))
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    true = (probabilities.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1)
    return probabilities, true.clip(max=num_classes - 1)


def mapie() -> Iterator[Row]:
    """Compare sets with those of MAPIE, with the random numbers that it draws.

    MAPIE always draws random numbers for APS. It chooses the penalty of RAPS on a part of the images, so RAPS gets its
    choice here. We add the predicted class to each set afterwards, which MAPIE does not do for these settings.

    With MAPIE 1.6.0, all values of LAC and APS agree, and 98% to 99.97% of those of RAPS. For penalized classes, MAPIE
    removes the last class of a set with a probability that does not follow from its score. We use the same score to
    choose the limit and to make the sets, so that the coverage is exact.
    """
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import RAPSConformityScore
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Returns its input as the probabilities."""

        def __init__(self, num_classes: int = 2) -> None:
            self.num_classes = num_classes

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            self.classes_ = np.arange(self.num_classes)
            self.is_fitted_ = True
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    for num_classes in (3, 10, 100):  # for two classes, MAPIE has only LAC
        known, true = draw(1_000, num_classes, num_classes)
        new, _ = draw(500, num_classes, num_classes + 1)
        names = [str(number) for number in range(num_classes)]
        for kind, level in ((kind, level) for kind in ("lac", "aps", "raps") for level in LEVELS):
            score = RAPSConformityScore() if kind == "raps" else kind
            estimator = Given(num_classes).fit(known, true)
            theirs = SplitConformalClassifier(
                estimator, confidence_level=level, conformity_score=score, prefit=True, random_state=3
            )
            theirs.conformalize(known, true)
            options = {} if kind == "lac" else {"include_last_label": "randomized"}
            expected = theirs.predict_set(new, conformity_score_params=options)[1][:, :, 0]
            chosen, labels = known, true
            if kind == "raps":
                fitted = theirs._mapie_classifier.conformity_score_function_
                limits._PENALTY, limits._UNPENALIZED = float(fitted.lambda_star), int(fitted.k_star[0])
                is_own = ~(known[:, None, 0] == fitted.X_raps[None, :, 0]).any(axis=1)
                chosen, labels = known[is_own], true[is_own]
            shares = [1 - np.random.RandomState(3).uniform(size=len(part)).reshape(-1, 1) for part in (chosen, new)]
            scores, of_new = (
                limits.nonconformity(*pair) for pair in zip((chosen, new), (kind, kind), shares, strict=True)
            )
            found = of_new <= limits.fit_limits(kind, level, scores, labels, names)
            yield f"{kind}, {num_classes} classes, {level:.0%}", int((found == expected).sum()), found.size


LIBRARIES: dict[str, Callable[[], Iterator[Row]]] = {"mapie": mapie}


def main() -> None:
    """Print the comparisons with the libraries that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=LIBRARIES, help="compare with this library only")
    only = parser.parse_args().only
    for name in [only] if only else LIBRARIES:
        for what, num_equal, num_values in LIBRARIES[name]():
            print(f"{name}: {what}: {num_equal:,} of {num_values:,} agree")


if __name__ == "__main__":
    main()
