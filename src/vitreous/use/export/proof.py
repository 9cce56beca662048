"""Exported files, labeled photos -> Proof of each: whether it gives Python's answers, its accuracy and its speed."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.familiarity import FLAGGED, Familiarity, head_inputs
from vitreous.use.evaluate.paired import paired_difference
from vitreous.use.predict.predictor import Predictor

Photos = NDArray[np.uint8]
"""Photos of equal size, `[batch, height, width, channels]`."""
Outputs = tuple[NDArray[Any], ...]
"""Probabilities, `[batch, classes]`; perhaps the percentiles of `Familiarity.unfamiliar`, `[batch]`."""
Answer = Callable[[Photos], Outputs]
"""How a file answers for photos of equal size."""

PYTHON = "Python"
"""Name of the original model among the proofs."""
BATCH_SIZES = (1, 2, 7)
"""Batches of photos of equal size that are compared; 1 with each photo at its own size. The last one is timed, too."""
_TIMED_S = 0.5


@dataclass(frozen=True, eq=False)
class Photo:
    """A labeled photo.

    Attributes:
        name: Its path or number.
        pixels: Decoded and upright, uint8, `[height, width, channels]`.
        label: Number of its class, or for each label whether it has it.
    """

    name: str
    pixels: NDArray[np.uint8]
    label: Any


@dataclass(frozen=True)
class Proof:
    """A comparison of an exported file with Python on the same photos.

    Attributes:
        num_images: Photos that were compared, each at its own size.
        num_same: Photos with the same predicted class, or the same labels.
        largest_difference: Largest difference between two probabilities, also in batches of 2 and 7.
        worst: The photo with the largest difference.
        accuracy: Share of the photos that get exactly their class or labels.
        interval_95: Its 95% interval.
        drop: Accuracy of Python minus accuracy of the file, and both ends of its 95% interval, paired by photo.
        latency_ms: Median time of one photo, and the 95th percentile.
        images_per_s: Photos per second in batches, of 7 photos for an exported file.
        size_bytes: Size of the file; 0 for Python.
        unfamiliar: Photos that both mark, or neither, as unlike the training images, and the largest difference of
            their percentiles; None if the file has none.
    """

    num_images: int
    num_same: int
    largest_difference: float
    worst: str
    accuracy: float
    interval_95: tuple[float, float]
    drop: tuple[float, float, float]
    latency_ms: tuple[float, float]
    images_per_s: float
    size_bytes: int = 0
    unfamiliar: tuple[int, float] | None = None


def python_answer(predictor: Predictor, known: Familiarity | None = None) -> Answer:
    """Return how Python answers for photos of equal size; `known` are the statistics for its second output."""

    def answer(photos: Photos) -> Outputs:
        images = (photo.squeeze(2) if photo.shape[2] == 1 else photo for photo in photos)
        pixels = torch.stack([predictor.preprocess.pixels(image) for image in images])
        if known is None:
            return (predictor.probabilities(predictor.logits(pixels)).numpy(),)
        features, logits = head_inputs(predictor.model, [predictor.preprocess.normalize(pixels)])
        return predictor.probabilities(logits).numpy(), known.unfamiliar(features, logits)

    return answer


def prove(
    answers: Mapping[str, Answer],
    python: Answer,
    photos: Iterable[Photo],
    thresholds: Sequence[float] | None,
    batch_size: int = BATCH_SIZES[-1],
) -> dict[str, Proof]:
    """Compare the answers for each photo, and for batches of `BATCH_SIZES`; measure accuracy and time.

    Return the proof of each file in `answers`, and before them that of `PYTHON`, the model that they were made from.
    `thresholds` are None if a photo has one class. Throughput is measured with batches of `batch_size`.
    """
    everyone = {PYTHON: python, **answers}
    names, labels, first = list[str](), list[Any](), list[NDArray[np.uint8]]()
    outputs: dict[str, list[Outputs]] = {name: [] for name in everyone}
    times_ms: dict[str, list[float]] = {name: [] for name in everyone}
    for photo in photos:
        for name, answer in everyone.items():  # in turn, so that a busy machine slows all answers
            if not names:
                answer(photo.pixels[None])  # the first call prepares what later ones use
            began_s = time.perf_counter()
            outputs[name].append(answer(photo.pixels[None]))
            times_ms[name].append(1e3 * (time.perf_counter() - began_s))
        names.append(photo.name)
        labels.append(photo.label)
        if len(first) < max(batch_size, *BATCH_SIZES):  # few photos stay in memory
            first.append(photo.pixels)
    batches = [_equal_size(first, size) for size in BATCH_SIZES[1:]]
    rows = {name: [np.concatenate(parts) for parts in zip(*outputs[name], strict=True)] for name in everyone}
    decisions = {name: decided(rows[name][0], thresholds) for name in everyone}
    right = {name: are_same(decisions[name], np.array(labels)) for name in everyone}
    speeds, found = _images_per_s(everyone, _equal_size(first, batch_size)), {}
    for name, answer in everyone.items():
        differences = np.abs(rows[name][0] - rows[PYTHON][0]).max(axis=1)
        gaps = [(float(differences.max()), names[int(differences.argmax())])]
        for batch in batches:
            what = f"a batch of {len(batch)} that begins with {names[0]}"
            gaps.append((float(np.abs(answer(batch)[0] - python(batch)[0]).max()), what))
        largest, worst = max(gaps, key=lambda gap: np.nan_to_num(gap[0], nan=np.inf))
        found[name] = Proof(
            num_images=len(names),
            num_same=int(are_same(decisions[name], decisions[PYTHON]).sum()),
            largest_difference=largest,
            worst=worst,
            accuracy=float(right[name].mean()),
            interval_95=Score(len(names), int(right[name].sum()), 0.0).interval,
            drop=paired_difference(right[PYTHON].astype(np.float64) - right[name]),
            latency_ms=(float(np.median(times_ms[name])), float(np.quantile(times_ms[name], 0.95))),
            images_per_s=speeds[name],
            unfamiliar=_compared(rows[name][1:], rows[PYTHON][1:]),
        )
    return found


def decided(probabilities: NDArray[np.floating[Any]], thresholds: Sequence[float] | None) -> NDArray[Any]:
    """Return the predicted class of each photo, `[n]`, or for each label whether it is predicted, `[n, classes]`."""
    if thresholds is None:
        return probabilities.argmax(axis=1)
    return probabilities.astype(np.float64) >= np.array(thresholds)


def are_same(some: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each photo whether two decisions are equal, `[n]`."""
    return (some == others).reshape(len(some), -1).all(axis=1)


def _compared(some: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> tuple[int, float] | None:
    """Compare the second outputs, if both have one."""
    if not (some and others):
        return None
    num_same = int(((some[0] >= FLAGGED) == (others[0] >= FLAGGED)).sum())
    return num_same, float(np.abs(some[0] - others[0]).max())


def _equal_size(photos: Sequence[NDArray[np.uint8]], size: int) -> Photos:
    """Return a batch of the photos, cut to the smallest height and width among them; few ones are repeated."""
    chosen = [photos[number % len(photos)] for number in range(size)]
    height, width = (min(pixels.shape[axis] for pixels in chosen) for axis in (0, 1))
    return np.stack([pixels[:height, :width] for pixels in chosen])


def _images_per_s(everyone: Mapping[str, Answer], batch: Photos) -> dict[str, float]:
    """Return the photos per second of each, from the median time of rounds in which all take turns."""
    times_s: dict[str, list[float]] = {name: [] for name in everyone}
    ends_s, rounds = time.perf_counter() + _TIMED_S * len(everyone), 0
    while rounds < 2 or time.perf_counter() < ends_s:  # the first round prepares this size of a batch
        for name, answer in everyone.items():
            began_s = time.perf_counter()
            answer(batch)
            times_s[name].append(time.perf_counter() - began_s)
        rounds += 1
    return {name: len(batch) / float(np.median(times[1:])) for name, times in times_s.items()}
