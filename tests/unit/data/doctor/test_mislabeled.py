"""find_doubtful_labels: changed labels are found, correct ones are not doubted, useless features doubt nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.doctor.mislabeled import find_doubtful_labels, thumbnail_features
from vitreous.data.doctor.summaries import summarize_source
from vitreous.data.sources import open_source


def _clouds(counts: tuple[int, ...], spread: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points around one center per class, in seven dimensions, and their classes."""
    draw = np.random.default_rng(2)
    labels = np.repeat(np.arange(len(counts)), counts)
    centers = 4 * np.eye(7)[: len(counts)]
    return (centers[labels] + draw.normal(0, spread, (len(labels), 7))).astype(np.float32), labels


def test_changed_labels_are_found_and_no_others() -> None:
    features, labels = _clouds((60, 50, 40), 0.4)
    changed, given = np.array([3, 17, 70, 121]), labels.copy()
    given[changed] = (labels[changed] + 1) % 3
    doubts = find_doubtful_labels(features, given)
    assert sorted(doubts.positions.tolist()) == changed.tolist()
    assert doubts.likely_classes.tolist() == labels[doubts.positions].tolist()
    assert (doubts.probabilities > 0.5).all()
    assert doubts.num_judged == 150
    assert doubts.is_reliable
    assert 0.9 < doubts.accuracy < 1


def test_most_doubtful_labels_come_first() -> None:
    features, labels = _clouds((60, 50, 40), 1.2)
    given = labels.copy()
    given[::10] = (labels[::10] + 1) % 3
    doubts = find_doubtful_labels(features, given)
    assert len(doubts.positions) > 5
    assert doubts.probabilities[0] > doubts.probabilities[-1]


def test_uninformative_features_doubt_no_label() -> None:
    features, labels = _clouds((60, 50, 40), 30.0)
    doubts = find_doubtful_labels(features, labels)
    assert not doubts.is_reliable
    assert len(doubts.positions) == 0


def test_small_classes_are_not_judged() -> None:
    features, labels = _clouds((30, 4, 25), 0.5)
    doubts = find_doubtful_labels(features, labels)
    assert doubts.num_judged == 55
    assert set(doubts.likely_classes.tolist()) <= {0, 2}


@pytest.mark.parametrize("counts", [(), (12,), (12, 4)])
def test_single_class_is_not_judged(counts: tuple[int, ...]) -> None:
    features, labels = _clouds(counts, 0.5)
    doubts = find_doubtful_labels(features, labels)
    assert doubts.num_judged == len(doubts.positions) == 0
    assert np.isnan(doubts.accuracy)
    assert not doubts.is_reliable


def _rare(seed: int, *, shift: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 500 points of class 0 and 15 of class 1, which is at a distance of `shift` in one of 96 dimensions."""
    labels = np.repeat([0, 1], [500, 15])
    features = np.random.default_rng(seed).normal(0, 1, (515, 96))
    features[labels == 1, 1] += shift
    return features.astype(np.float32), labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_of_a_rare_class_are_not_doubted_because_they_are_rare(seed: int) -> None:
    doubts = find_doubtful_labels(*_rare(seed, shift=0.0))
    assert doubts.accuracy > 0.9  # as is always guessing the frequent class
    assert doubts.largest_share == pytest.approx(500 / 515)
    assert doubts.num_judged == len(doubts.positions) == 0


def test_wrong_labels_of_a_recognized_rare_class_are_found() -> None:
    features, labels = _rare(3, shift=9.0)
    changed, given = np.array([17, 203, 388]), labels.copy()
    given[changed] = 1
    doubts = find_doubtful_labels(features, given)
    assert sorted(doubts.positions.tolist()) == changed.tolist()
    assert doubts.num_judged == 515


def test_only_the_unrecognized_class_of_several_is_not_judged() -> None:
    features, labels = _clouds((120, 110, 100), 0.5)
    labels[np.random.default_rng(1).choice(330, 12, replace=False)] = 3  # 12 images without anything in common
    doubts = find_doubtful_labels(features, labels)
    assert doubts.num_judged == 318
    assert not (labels[doubts.positions] == 3).any()


def test_progress_ends_with_all_judged_images() -> None:
    seen: list[tuple[int, int]] = []
    find_doubtful_labels(*_clouds((30, 4, 25), 0.5), progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (55, 55)
    assert len(seen) == 5


def test_all_images_are_judged_even_if_the_fit_uses_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.doctor.mislabeled._MOST_FITTED", 40)
    features, labels = _clouds((60, 50, 40), 0.5)
    labels[7] = 2
    doubts = find_doubtful_labels(features, labels)
    assert doubts.num_judged == 150
    assert doubts.positions.tolist() == [7]


# Features of thumbnails.


def test_edge_features_ignore_brightness() -> None:
    gray = np.asarray(Image.effect_noise((32, 32), 60).resize((32, 32)), dtype=np.uint8)
    flat = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    one, other = (thumbnail_features(part[None], flat)[0, :512] for part in (gray // 2, gray // 2 + 60))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_edge_features_distinguish_directions() -> None:
    stripes = np.tile(np.repeat(np.array([0, 255], dtype=np.uint8), 4), 4)
    down, across = np.tile(stripes[:, None], (1, 32)), np.tile(stripes, (32, 1))
    flat = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    one, other = (thumbnail_features(part[None], flat)[0, :512].astype(float) for part in (down, across))
    assert abs(one @ other) < 0.1 * (one @ one)


def test_features_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    gray, color = (draw.integers(0, 256, (5, *shape), dtype=np.uint8) for shape in ((32, 32), (8, 8, 3)))
    whole = thumbnail_features(gray, color)
    monkeypatch.setattr("vitreous.data.doctor.mislabeled._CHUNK", 2)
    np.testing.assert_array_equal(thumbnail_features(gray, color), whole)
    assert whole.shape == (5, 512 + 192)


def _texture(label: int, seed: int) -> Image.Image:
    """Draw stripes at an angle and in a color that depend on the class, with noise."""
    draw = np.random.default_rng(seed)
    row, column = np.indices((32, 32))
    angle = label * np.pi / 4 + draw.normal(0, 0.08)
    wave = np.sin((row * np.cos(angle) + column * np.sin(angle)) * 0.9 + draw.uniform(0, 6))
    tint = np.array([[200, 90, 80], [90, 200, 80], [80, 90, 200], [180, 180, 60]])[label]
    pixels = (wave[..., None] * 0.4 + 0.6) * tint + draw.normal(0, 25, (32, 32, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_changed_labels_of_generated_images_are_found() -> None:
    labels = np.repeat(np.arange(4), 30)
    images = [_texture(int(label), seed) for seed, label in enumerate(labels)]
    gray = np.stack([np.asarray(image.convert("L")) for image in images])
    color = np.stack([np.asarray(image.resize((8, 8), Image.Resampling.BOX)) for image in images])
    changed, given = np.array([4, 17, 40, 77, 101]), labels.copy()
    given[changed] = (labels[changed] + 1) % 4
    doubts = find_doubtful_labels(thumbnail_features(gray, color), given)
    assert sorted(doubts.positions.tolist()) == changed.tolist()
    assert doubts.likely_classes.tolist() == labels[doubts.positions].tolist()


def test_changed_labels_of_real_photos_are_found(shared: Callable[..., Path]) -> None:
    summaries = summarize_source(open_source(shared("sign-digits")), {})
    changed = np.random.default_rng(4).choice(len(summaries), 40, replace=False)
    labels = summaries.labels.copy()
    labels[changed] = (labels[changed] + 3) % 10
    doubts = find_doubtful_labels(thumbnail_features(summaries.gray, summaries.color), labels)
    found = np.isin(doubts.positions, changed)
    assert found.sum() >= 28  # 70% of the changed labels
    assert found.mean() >= 0.6  # precision; the set itself has wrong labels too


def test_a_patient_is_not_recognized_instead_of_the_class() -> None:
    draw = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 6)
    features = (draw.normal(size=(40, 30))[patients] + 0.01 * draw.normal(size=(240, 30))).astype(np.float32)
    labels = draw.integers(0, 2, 40)[patients]
    assert find_doubtful_labels(features, labels).is_reliable
    assert find_doubtful_labels(features, labels, patients).accuracy < 0.6


def test_a_wrong_label_that_all_images_of_a_patient_have_is_found() -> None:
    features, labels = _clouds((60, 50, 40), 0.4)
    features += 3 * np.eye(7, dtype=np.float32)[6] * (np.arange(150) < 5)[:, None]  # the patient looks special
    families, given = np.maximum(np.arange(150), 4), labels.copy()
    given[:5] = 1
    assert not set(find_doubtful_labels(features, given).positions.tolist()) & set(range(5))
    assert set(find_doubtful_labels(features, given, families).positions.tolist()) >= set(range(5))


def test_classes_of_few_patients_are_not_judged() -> None:
    features, labels = _clouds((30, 40, 25), 0.5)
    families = np.where(labels == 1, 100 + np.arange(95) % 4, np.arange(95))
    assert find_doubtful_labels(features, labels, families).num_judged == 55
