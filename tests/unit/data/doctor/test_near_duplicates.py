"""find_near_duplicates: equal to a naive comparison in float64; finds modified copies of an image and nothing else."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.fft import dctn
from tests.unit.data.doctor.conftest import photo

from vitreous.data.doctor import near_duplicates
from vitreous.data.doctor.near_duplicates import SIDE_PX, describe, find_near_duplicates
from vitreous.data.doctor.summaries import summarize_source
from vitreous.data.sources import open_source

Bytes = NDArray[np.uint8]


def _thumbnails(image: Image.Image) -> tuple[Bytes, Bytes]:
    small = image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    return np.asarray(small.convert("L")), np.asarray(small.resize((SIDE_PX // 4, SIDE_PX // 4), Image.Resampling.BOX))


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded at 75": lambda image: _jpeg(image, 75),
    "encoded at 30": lambda image: _jpeg(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "1.5 times the size": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grayscale": lambda image: image.convert("L"),
}


def _groups(images: list[Image.Image]) -> list[int]:
    gray, color = zip(*map(_thumbnails, images), strict=True)
    return find_near_duplicates(np.stack(gray), np.stack(color)).tolist()


@pytest.mark.parametrize("kind", CHANGES)
def test_modified_copies_are_found(kind: str) -> None:
    images = [photo(seed) for seed in range(12)]
    groups = _groups([*images, *(CHANGES[kind](image) for image in images)])
    assert groups[:12] == groups[12:]
    assert len(set(groups)) == 12


def test_mirrored_rotated_or_recolored_images_are_not_near_duplicates() -> None:
    image = photo(3)
    red, green, blue = image.split()
    swapped = Image.merge("RGB", (blue, green, red))
    others = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image.rotate(90), swapped, *map(photo, range(10, 15))]
    assert len(set(_groups([image, *others]))) == 9


def test_constant_images_are_not_near_duplicates() -> None:
    assert len(set(_groups([Image.new("RGB", (9, 9), (20 * n, 0, 0)) for n in range(6)] + [photo(1)]))) == 7


@pytest.mark.parametrize("count", [0, 1, 2])
def test_zero_one_and_two_images_can_be_grouped(count: int) -> None:
    gray = np.stack([_thumbnails(photo(5))[0]] * 2)[:count]
    color = np.stack([_thumbnails(photo(5))[1]] * 2)[:count]
    assert find_near_duplicates(gray, color).tolist() == [0] * count


def test_description_ignores_brightness_and_contrast() -> None:
    gray = _thumbnails(photo(1))[0].astype(float)
    changed = np.stack([gray, 0.5 * gray + 40]).round().astype(np.uint8)
    one, other = describe(changed).double().numpy()
    assert one @ other > 0.99  # not exactly 1, because pixels are rounded
    np.testing.assert_allclose([one @ one, other @ other], 1, rtol=1e-6)


# Comparison with a naive implementation.


def _naive(gray: Bytes, color: Bytes) -> list[set[int]]:
    """Apply the rules at the top of `near_duplicates.py` pair by pair, in float64."""
    count = len(gray)
    weight = np.hypot(*np.meshgrid(np.arange(16.0), np.arange(16.0)))
    vectors = []
    for image in gray.astype(float):
        # SciPy's transform has a factor of 2 per axis.
        vector = (dctn(image - image.mean())[:16, :16] / 4 * weight).ravel()[1:]
        length = np.sqrt((vector**2).sum())
        vectors.append(vector / length if length > 0.01 * SIDE_PX else np.zeros(255))
    alike = np.array([[one @ other for other in vectors] for one in vectors])

    def neighbors(i: int) -> list[int]:
        return sorted((j for j in range(count) if j != i and vectors[j].any()), key=lambda j: -alike[i, j])[:16]

    def limit(i: int) -> float:
        order = neighbors(i)
        found = 2.0
        for here, after in pairwise(order):
            far, further = (max(1 - alike[i, j], 1e-4) for j in (here, after))
            if alike[i, here] >= 0.90 and further >= 3 * far:
                found = alike[i, here]
        return min(found, 0.99)

    def tint(i: int) -> NDArray[np.float64]:
        return (color[i] - color[i].astype(float).mean(axis=2, keepdims=True)).ravel()

    def colors_agree(i: int, j: int) -> bool:
        strengths = [np.sqrt((tint(k) ** 2).mean()) for k in (i, j)]
        return min(strengths) < 6 or (tint(i) * tint(j)).mean() >= 0.8 * strengths[0] * strengths[1]

    accepts = {
        (i, j)
        for i in range(count)
        if vectors[i].any()
        for j in neighbors(i)
        if alike[i, j] >= limit(i) and colors_agree(i, j)
    }
    family = [{i} for i in range(count)]
    for i, j in accepts:
        if ((j, i) in accepts or alike[i, j] >= 0.99) and family[i] is not family[j]:
            family[i] |= family[j]
            for k in family[j]:
                family[k] = family[i]
    return family


def _partition(numbers: NDArray[np.int64]) -> list[set[int]]:
    return [set(np.flatnonzero(numbers == number).tolist()) for number in numbers]


@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*CHANGES, "noisy", "constant"])), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_groups_equal_those_of_the_naive_implementation(seed: int, kinds: list[tuple[int, str]]) -> None:
    images = [photo(seed + number, 32) for number in range(6)]
    for number, kind in kinds:
        image = images[number]
        if kind == "noisy":
            noise = np.random.default_rng(seed + len(images)).normal(0, 12, (32, 32, 3))
            images.append(Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)))
        else:
            images.append(Image.new("RGB", (8, 8)) if kind == "constant" else CHANGES[kind](image))
    gray, color = (np.stack(part) for part in zip(*map(_thumbnails, images), strict=True))
    assert _partition(find_near_duplicates(gray, color)) == _naive(gray, color)


# More images than fit into one cell.


def test_cells_give_the_same_groups_as_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(seed, 32) for seed in range(150)]
    images += [_jpeg(image, 60) for image in images[::5]]
    gray, color = (np.stack(part) for part in zip(*map(_thumbnails, images), strict=True))
    whole = find_near_duplicates(gray, color)
    monkeypatch.setattr(near_duplicates, "_CELL", 16)
    assert _partition(find_near_duplicates(gray, color)) == _partition(whole)
    assert len(set(whole.tolist())) == 150


def test_size_of_a_comparison_is_bounded_by_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    gray, color = (np.stack(part) for part in zip(*(_thumbnails(photo(seed, 32)) for seed in range(200)), strict=True))
    monkeypatch.setattr(near_duplicates, "_CELL", 16)
    sizes: list[int] = []
    original = near_duplicates.cells_of

    def counted(*arguments):  # type: ignore[no-untyped-def]
        for cell in original(*arguments):
            sizes.append(len(cell))
            yield cell

    monkeypatch.setattr(near_duplicates, "cells_of", counted)
    find_near_duplicates(gray, color)
    assert max(sizes) < 100
    assert sum(sizes) > 200


def test_many_equal_images_terminate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_CELL", 16)
    gray, color = (np.stack([part] * 150) for part in _thumbnails(photo(4)))
    assert set(find_near_duplicates(gray, color).tolist()) == {0}


def test_progress_ends_with_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_CELL", 8)
    gray, color = (np.stack(part) for part in zip(*(_thumbnails(photo(seed, 32)) for seed in range(60)), strict=True))
    seen: list[tuple[int, int]] = []
    find_near_duplicates(gray, color, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (60, 60)


# Real photos.


def test_real_photos_have_no_false_near_duplicates(shared: Callable[..., Path]) -> None:
    source = open_source(shared("clothing-96px", "test"))
    summaries = summarize_source(source, {})
    assert len(np.unique(find_near_duplicates(summaries.gray, summaries.color))) == len(source) == 372
