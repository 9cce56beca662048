from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitreous.data.sources import open_source
from vitreous.data.survey.facts import survey
from vitreous.data.survey.mirror import judge_by_looks, judge_by_names


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([str(i) for i in range(10)], "10 of 10 classes are named like characters, e.g. '0'"),
        (["A", "b", "Ü", "space"], "3 of 4 classes are named like characters, e.g. 'A'"),
        (["seven", "Eight"], "2 of 2 classes are named like characters, e.g. 'seven'"),
        (["turn_left", "stop"], "class 'turn_left' names a side"),
        (["arrow Right", "arrow up"], "class 'arrow Right' names a side"),
    ],
)
def test_names_of_characters_and_sides_forbid_mirroring(classes: list[str], reason: str) -> None:
    verdict = judge_by_names(classes)
    assert verdict is not None
    assert (verdict.keeps_meaning, verdict.reason) == (False, reason)


@pytest.mark.parametrize("classes", [["cat", "dog"], ["bright", "cleft"], ["x", "cat", "dog"], ["00012", "17", "103"]])
def test_other_names_tell_nothing(classes: list[str]) -> None:
    assert judge_by_names(classes) is None


def arrows(num_images: int, angles: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    thumbnails, labels = [], []
    for number in range(num_images):
        label = number % len(angles)
        image = Image.new("L", (64, 64), int(random.integers(120, 255)))
        outline = [(8, 26), (34, 26), (34, 14), (56, 32), (34, 50), (34, 38), (8, 38)]
        ImageDraw.Draw(image).polygon(outline, fill=int(random.integers(0, 100)))
        angle = angles[label] + random.uniform(-10, 10)
        image = image.rotate(angle, fillcolor=image.getpixel((0, 0)), translate=tuple(random.integers(-6, 6, 2)))
        thumbnails.append(np.asarray(image.resize((16, 16))))
        labels.append(label)
    return np.stack(thumbnails), np.array(labels, dtype=np.int64)


def test_arrows_to_the_sides_forbid_mirroring() -> None:
    verdict = judge_by_looks(*arrows(200, [0, 90, 180, 270]))
    assert not verdict.keeps_meaning
    assert verdict.reason.startswith("of 200 training thumbnails a nearest neighbour recognises")


def test_few_classes_that_mirror_each_other_forbid_mirroring() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 8
    thumbnails = random.integers(0, 60, (400, 16, 16), dtype=np.uint8)
    for thumbnail, label in zip(thumbnails, labels, strict=True):
        if label < 2:  # a bright column, left or right
            thumbnail[:, 3 if label else 12] += 150
        else:  # a bright row, at six heights
            thumbnail[2 * label] += 150
    verdict = judge_by_looks(thumbnails, labels)
    assert not verdict.keeps_meaning
    assert verdict.reason.endswith("once it knows mirror images: some classes mirror each other")


def test_arrows_up_and_down_allow_mirroring() -> None:
    assert judge_by_looks(*arrows(200, [90, 270])).keeps_meaning


def test_noise_tells_nothing_and_allows_mirroring() -> None:
    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 256, (300, 16, 16), dtype=np.uint8)
    assert judge_by_looks(thumbnails, random.integers(0, 2, 300)).keeps_meaning


def test_few_images_allow_mirroring_and_say_so() -> None:
    verdict = judge_by_looks(*arrows(19, [0, 180]))
    assert verdict.keeps_meaning
    assert verdict.reason == "19 images are too few to tell; photos usually keep their meaning"


def test_digits_look_like_something_that_is_not_mirrored() -> None:
    source = open_source("digits")
    images = [Image.fromarray(source.encoded(index)) for index in range(600)]
    thumbnails = np.stack([np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)) for image in images])
    assert not judge_by_looks(thumbnails, source.labels[:600]).keeps_meaning


@pytest.mark.parametrize(("folder", "mirror"), [("sign-digits", False), ("clothing-96px", True)])
def test_real_photos_are_judged_rightly(shared: Callable[..., Path], folder: str, mirror: bool) -> None:
    assert survey(open_source(shared(folder))).facts.mirror is mirror
