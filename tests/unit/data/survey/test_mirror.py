import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitreous.data.sources import open_source
from vitreous.data.survey.facts import survey
from vitreous.data.survey.mirror import Mirror, judge_by_images, judge_by_names


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([str(i) for i in range(10)], "class names that are letters or digits: 10 of 10, e.g. '0'"),
        (["A", "b", "Ü", "space"], "class names that are letters or digits: 3 of 4, e.g. 'A'"),
        (["seven", "Eight"], "class names that are letters or digits: 2 of 2, e.g. 'seven'"),
        (["turn_left", "stop"], "class 'turn_left' names a side"),
        (["arrow Right", "arrow up"], "class 'arrow Right' names a side"),
        (["north", "slope-west", "slope-east"], "class 'slope-west' names a side"),
    ],
)
def test_class_names_that_are_characters_or_sides_forbid_mirroring(classes: list[str], reason: str) -> None:
    assert judge_by_names(classes) == Mirror(keeps_class=False, reason=reason)


@pytest.mark.parametrize("classes", [["cat", "dog"], ["bright", "cleft"], ["x", "cat", "dog"], ["00012", "17", "103"],
                                     ["n02098286-West_Highland_white_terrier", "n02085620-Chihuahua"]])  # fmt: skip
def test_other_class_names_do_not_decide(classes: list[str]) -> None:
    assert judge_by_names(classes) is None


def arrows(num_images: int, angles: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    """Draw thumbnails of arrows in noisy directions; the angle in degrees is the class."""
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


def test_arrows_in_four_directions_forbid_mirroring() -> None:
    decision = judge_by_images(*arrows(200, [0, 90, 180, 270]))
    assert not decision.keeps_class
    assert re.fullmatch(
        r"a nearest-neighbor classifier recognizes \d+% of 200 thumbnails, but only \d+% when they are mirrored",
        decision.reason,
    )


def test_two_of_eight_classes_that_mirror_each_other_forbid_mirroring() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 8
    thumbnails = random.integers(0, 60, (400, 16, 16), dtype=np.uint8)
    for thumbnail, label in zip(thumbnails, labels, strict=True):
        if label < 2:  # a bright column, left or right
            thumbnail[:, 3 if label else 12] += 150
        else:  # a bright row, at six heights
            thumbnail[2 * label] += 150
    decision = judge_by_images(thumbnails, labels)
    assert not decision.keeps_class
    assert decision.reason.endswith("with mirror images in its training set, because some classes mirror each other")


def test_arrows_up_and_down_allow_mirroring() -> None:
    assert judge_by_images(*arrows(200, [90, 270])).keeps_class


def test_mirrored_images_look_usual_unless_they_are_recognized_less_often() -> None:
    assert judge_by_images(*arrows(200, [90, 270])).looks_usual
    random = np.random.default_rng(0)
    labels = np.arange(400) % 8
    thumbnails = random.integers(0, 20, (400, 16, 16), dtype=np.uint8)
    for thumbnail, label in zip(thumbnails, labels, strict=True):
        if label:  # a bright row
            thumbnail[2 * label] += 150
        else:  # a bright column, always on the left
            thumbnail[:, 3] += 150
    decision = judge_by_images(thumbnails, labels)
    assert decision.keeps_class
    assert not decision.looks_usual


def test_noise_allows_mirroring() -> None:
    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 256, (300, 16, 16), dtype=np.uint8)
    assert judge_by_images(thumbnails, random.integers(0, 2, 300)).keeps_class


def test_classes_of_one_image_allow_mirroring_without_a_warning_of_scikit_learn() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    assert judge_by_images(thumbnails, np.arange(60)).keeps_class  # warnings are errors in tests


def test_too_few_images_allow_mirroring_with_a_reason() -> None:
    decision = judge_by_images(*arrows(19, [0, 180]))
    reason = "19 training images cannot show what mirroring changes; most photos can be mirrored"
    assert decision == Mirror(keeps_class=True, reason=reason)


def test_a_classifier_that_knows_the_patients_does_not_forbid_mirroring() -> None:
    random = np.random.default_rng(0)
    tissue = random.integers(0, 200, (30, 16, 16))
    patients = np.repeat(np.arange(30), 8)
    thumbnails = (tissue[patients] + random.integers(0, 40, (240, 16, 16))).astype(np.uint8)
    labels, names = patients % 2, np.array([f"p{patient}" for patient in patients])
    assert not judge_by_images(thumbnails, labels).keeps_class
    assert judge_by_images(thumbnails, labels, names).keeps_class
    assert judge_by_images(*arrows(200, [0, 180]), groups=np.full(200, "")).keeps_class is False


def test_images_of_digits_forbid_mirroring() -> None:
    source = open_source("digits")
    images = [Image.fromarray(source.encoded(index)) for index in range(600)]
    thumbnails = np.stack([np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)) for image in images])
    assert not judge_by_images(thumbnails, source.labels[:600]).keeps_class


@pytest.mark.parametrize(("angles", "mirror"), [([0, 90, 180, 270], False), ([90, 270], True)])
def test_survey_of_a_folder_decides_by_its_images(tmp_path: Path, angles: list[int], mirror: bool) -> None:
    thumbnails, labels = arrows(200, angles)
    for number, (thumbnail, label) in enumerate(zip(thumbnails, labels, strict=True)):
        path = tmp_path / f"direction {angles[label]}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(thumbnail).save(path)
    facts = survey(open_source(tmp_path), test_ratio=0.0, val_ratio=0.0).facts
    assert facts.mirror is mirror
    assert "of 200 thumbnails" in facts.mirror_reason


@pytest.mark.parametrize(("folder", "mirror"), [("sign-digits", False), ("clothing-96px", True)])
def test_real_photos_give_the_right_decision(shared: Callable[..., Path], folder: str, mirror: bool) -> None:
    assert survey(open_source(shared(folder))).facts.mirror is mirror
