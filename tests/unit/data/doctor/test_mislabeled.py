"""find_doubts: moved labels are found, right ones left alone, and where features tell nothing nothing is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.doctor.mislabeled import describe_for_labels, find_doubts
from vitreous.data.doctor.summaries import look_at_source
from vitreous.data.sources import open_source


def _clouds(counts: tuple[int, ...], spread: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points around a centre for each class, in seven dimensions."""
    draw = np.random.default_rng(2)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 4 * np.eye(7)[: len(counts)]
    return (centres[labels] + draw.normal(0, spread, (len(labels), 7))).astype(np.float32), labels


def test_moved_labels_are_found_and_nothing_else() -> None:
    features, labels = _clouds((60, 50, 40), 0.4)
    moved, given = np.array([3, 17, 70, 121]), labels.copy()
    given[moved] = (labels[moved] + 1) % 3
    doubts = find_doubts(features, given)
    assert sorted(doubts.positions.tolist()) == moved.tolist()
    assert doubts.looks_like.tolist() == labels[doubts.positions].tolist()
    assert (doubts.probability > 0.5).all()
    assert doubts.num_judged == 150
    assert doubts.can_tell
    assert 0.9 < doubts.accuracy < 1


def test_most_doubtful_come_first() -> None:
    features, labels = _clouds((60, 50, 40), 1.2)
    given = labels.copy()
    given[::10] = (labels[::10] + 1) % 3
    doubts = find_doubts(features, given)
    assert len(doubts.positions) > 5
    assert doubts.probability[0] > doubts.probability[-1]


def test_features_that_tell_nothing_have_no_say() -> None:
    features, labels = _clouds((60, 50, 40), 30.0)
    doubts = find_doubts(features, labels)
    assert not doubts.can_tell
    assert len(doubts.positions) == 0


def test_classes_of_few_images_are_not_judged() -> None:
    features, labels = _clouds((30, 4, 25), 0.5)
    doubts = find_doubts(features, labels)
    assert doubts.num_judged == 55
    assert set(doubts.looks_like.tolist()) <= {0, 2}


@pytest.mark.parametrize("counts", [(), (12,), (12, 4)])
def test_one_class_cannot_be_judged(counts: tuple[int, ...]) -> None:
    features, labels = _clouds(counts, 0.5)
    doubts = find_doubts(features, labels)
    assert doubts.num_judged == len(doubts.positions) == 0
    assert np.isnan(doubts.accuracy)
    assert not doubts.can_tell


def test_progress_ends_with_all_that_are_judged() -> None:
    seen: list[tuple[int, int]] = []
    find_doubts(*_clouds((30, 4, 25), 0.5), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (55, 55)
    assert len(seen) == 5


def test_more_images_than_are_fitted_are_all_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.doctor.mislabeled._MOST_FITTED", 40)
    features, labels = _clouds((60, 50, 40), 0.5)
    labels[7] = 2
    doubts = find_doubts(features, labels)
    assert doubts.num_judged == 150
    assert doubts.positions.tolist() == [7]


# Of thumbnails.


def test_description_of_edges_ignores_brightness() -> None:
    gray = np.asarray(Image.effect_noise((32, 32), 60).resize((32, 32)), dtype=np.uint8)
    flat = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    one, other = (describe_for_labels(part[None], flat)[0, :512] for part in (gray // 2, gray // 2 + 60))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_edges_are_told_by_their_direction() -> None:
    stripes = np.tile(np.repeat(np.array([0, 255], dtype=np.uint8), 4), 4)
    down, across = np.tile(stripes[:, None], (1, 32)), np.tile(stripes, (32, 1))
    flat = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    one, other = (describe_for_labels(part[None], flat)[0, :512].astype(float) for part in (down, across))
    assert abs(one @ other) < 0.1 * (one @ one)


def test_images_that_are_described_in_parts_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    gray, colour = (draw.integers(0, 256, (5, *shape), dtype=np.uint8) for shape in ((32, 32), (8, 8, 3)))
    whole = describe_for_labels(gray, colour)
    monkeypatch.setattr("vitreous.data.doctor.mislabeled._AT_ONCE", 2)
    np.testing.assert_array_equal(describe_for_labels(gray, colour), whole)
    assert whole.shape == (5, 512 + 192)


def test_labels_that_were_moved_in_real_photos_are_found(shared: Callable[..., Path]) -> None:
    looks = look_at_source(open_source(shared("sign-digits")), {})
    moved = np.random.default_rng(4).choice(len(looks), 40, replace=False)
    labels = looks.labels.copy()
    labels[moved] = (labels[moved] + 3) % 10
    doubts = find_doubts(describe_for_labels(looks.gray, looks.colour), labels)
    found = np.isin(doubts.positions, moved)
    assert found.sum() >= 28  # 70 % of what was moved
    assert found.mean() >= 0.6  # of what is named; the set has wrong labels of its own
