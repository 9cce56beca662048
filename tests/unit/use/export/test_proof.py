"""The comparison of files with Python: counts, differences, intervals, and values that are not numbers."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vitreous.use.evaluate.paired import paired_interval
from vitreous.use.export.proof import PYTHON, Answer, Outputs, Photo, Photos, Proof, decided, prove

Numbers = NDArray[np.float32]


def answer_from(change: Callable[[Numbers, int], Numbers], flagged: float | None = None) -> Answer:
    """Answer with the level of the first pixel as the probability of class 0, changed by `change`.

    The second output, if `flagged` is given, is that level plus `flagged`.
    """

    def answer(photos: Photos) -> Outputs:
        first = photos[:, 0, 0, 0].astype(np.float32) / 255
        found = change(np.stack([first, 1 - first], axis=1), len(photos))
        return (found,) if flagged is None else (found, first + flagged)

    return answer


def photos_of(levels: list[int], labels: list[int]) -> list[Photo]:
    return [
        Photo(f"{number}.png", np.full((3 + number, 9 - number, 3), level, dtype=np.uint8), label)
        for number, (level, label) in enumerate(zip(levels, labels, strict=True))
    ]


PHOTOS = photos_of([250, 200, 140, 120, 20], [0, 0, 1, 1, 1])


def proof_of(change: Callable[[Numbers, int], Numbers]) -> Proof:
    python = answer_from(lambda found, _: found)
    tried = prove({"file": answer_from(change)}, python, PHOTOS, None)
    assert list(tried) == [PYTHON, "file"]
    assert (tried[PYTHON].num_same, tried[PYTHON].largest_difference, tried[PYTHON].accuracy) == (5, 0.0, 0.8)
    return tried["file"]


def test_file_that_answers_differently_is_described() -> None:
    found = proof_of(lambda found, _: found + np.array([0.1, -0.1], dtype=np.float32))
    assert (found.num_images, found.num_same) == (5, 4)  # 120 of 255 becomes class 0
    assert found.largest_difference == pytest.approx(0.1, abs=1e-6)
    assert found.accuracy == pytest.approx(0.6)
    assert found.drop == pytest.approx((0.2, *paired_interval([0, 0, 0, 1, 0])))
    assert found.latency_ms[0] <= found.latency_ms[1]
    assert found.images_per_s > 0


def test_photo_with_the_largest_difference_is_named() -> None:
    found = proof_of(lambda found, _: np.where(abs(found - 140 / 255) < 1e-3, found + 0.03, found))
    assert (found.worst, found.num_same) == ("2.png", 5)
    assert found.largest_difference == pytest.approx(0.03, abs=1e-6)


@pytest.mark.parametrize("size", [2, 7])
def test_difference_that_only_a_batch_has_is_found(size: int) -> None:
    found = proof_of(lambda found, batch: found + 0.04 * (batch == size))
    assert found.worst == f"a batch of {size} that begins with 0.png"
    assert found.largest_difference == pytest.approx(0.04, abs=1e-6)


def test_value_that_is_not_a_number_is_the_largest_difference() -> None:
    found = proof_of(lambda found, batch: found * (np.nan if batch == 7 else 1) + 0.5)
    assert np.isnan(found.largest_difference)
    assert found.worst.startswith("a batch of 7")


def test_models_take_turns_in_the_timed_batches() -> None:
    calls: list[str] = []

    def recorded(name: str) -> Answer:
        def answer(photos: Photos) -> Outputs:
            calls.append(name) if len(photos) == 5 else None
            return (np.zeros((len(photos), 2), dtype=np.float32),)

        return answer

    found = prove({"file": recorded("b")}, recorded("a"), PHOTOS, None, 5)
    assert calls == ["a", "b"] * (len(calls) // 2)
    assert len(calls) >= 4
    assert min(proof.images_per_s for proof in found.values()) > 0


def test_flags_of_unlike_photos_are_compared() -> None:
    python, file = (answer_from(lambda found, _: found, flagged) for flagged in (0.0, 0.18))
    silent = answer_from(lambda found, _: found)
    tried = prove({"file": file, "silent": silent}, python, PHOTOS, None)  # 250 and 200 of 255 become more than 0.95
    assert tried["file"].unfamiliar == (4, pytest.approx(0.18, abs=1e-6))
    assert tried[PYTHON].unfamiliar == (5, 0.0)
    assert tried["silent"].unfamiliar is None


def test_several_labels_have_to_be_the_same_together() -> None:
    probabilities = np.array([[0.2, 0.5], [0.3, 0.5]], dtype=np.float32)
    assert decided(probabilities, (0.25, 0.5)).tolist() == [[False, True], [True, True]]
    photos = [Photo(photo.name, photo.pixels, np.array([photo.label == 0, photo.label == 1])) for photo in PHOTOS]
    tried = prove({}, answer_from(lambda found, _: found), photos, (0.5, 0.5))
    assert tried[PYTHON].accuracy == 0.8
