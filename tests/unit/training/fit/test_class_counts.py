"""ClassCounts against scikit-learn: baseline, balanced accuracy, and classes that are never predicted."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import balanced_accuracy_score

from vitreous.training.fit.class_counts import ClassCounts

CLASSES = ("ant", "bee", "cow", "dog", "eel")
INDICES = st.integers(0, 4)
PAIRS = st.lists(st.tuples(INDICES, INDICES), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_counts_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    counts = ClassCounts.of(CLASSES, true, predicted)
    always = DummyClassifier(strategy="most_frequent").fit(true, true)
    assert counts.majority_share == pytest.approx(always.score(true, true))
    assert counts.majority_class == CLASSES[always.predict([0])[0]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        assert counts.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, predicted))
    assert set(counts.never_predicted) == {CLASSES[label] for label in {*true} - {*predicted}}


@settings(deadline=None, max_examples=30)
@given(PAIRS, PAIRS)
def test_sum_of_counts_is_the_counts_of_all_images(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    together, one, other = (ClassCounts.of(CLASSES, *np.array(pairs).T) for pairs in (ours + theirs, ours, theirs))
    assert one + other == together


def test_rare_class_that_is_never_predicted_is_named() -> None:
    counts = ClassCounts.of(("defect", "good", "unseen"), [0] * 4 + [1] * 93, [1] * 97)
    assert counts.as_dict() == {
        "majority_class": "good",
        "majority_share": 93 / 97,
        "balanced_accuracy": 0.5,
        "never_predicted": ["defect"],  # no image shows `unseen`, so it is right not to predict it
    }
