import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.sources import ArraySource, open_source
from vitreous.data.survey.facts import DEFAULT_TEST_RATIO, survey
from vitreous.errors import DataError

MakeFolder = Callable[[Mapping[str, int]], Path]
MakeArrays = Callable[..., ArraySource]


def test_every_sample_is_in_exactly_one_split(make_arrays: MakeArrays) -> None:
    surveyed = survey(make_arrays(40, 30, 20))
    assert list(surveyed.indices) == ["train", "val", "test"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(surveyed.indices.values()))), np.arange(90))
    facts = surveyed.facts
    assert (facts.num_train, facts.num_val, facts.num_test) == tuple(len(i) for i in surveyed.indices.values())
    np.testing.assert_array_equal(facts.class_counts, np.bincount(surveyed.source.labels[surveyed.indices["train"]]))


def test_facts_of_a_small_folder_of_sixty_images(make_folder: MakeFolder) -> None:
    facts = survey(open_source(make_folder({"Äpfel": 30, "süße Birnen": 30}))).facts
    assert facts.classes == ("süße Birnen", "Äpfel")
    assert facts.num_train + facts.num_val + facts.num_test == 60
    assert min(facts.num_train, facts.num_val, facts.num_test) > 0
    assert (facts.in_chans, facts.height_px, facts.width_px) == (3, 9, 12)
    assert (facts.skipped, facts.notes, facts.test_ratio) == ((), (), DEFAULT_TEST_RATIO)


def test_sizes_are_medians_and_extremes_and_one_color_image_makes_three_channels(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 0, "dog": 0})
    for number, (height, width) in enumerate([(10, 40), (20, 30), (90, 25)]):
        pixels = np.full((height, width), number, np.uint8)
        Image.fromarray(pixels).save(root / ("cat" if number else "dog") / f"{number}.png")
    facts = survey(open_source(root), test_ratio=0.0, val_ratio=0.0).facts
    assert (facts.height_px, facts.width_px, facts.in_chans) == (20, 30, 1)
    assert (facts.min_size_px, facts.max_size_px) == ((10, 25), (90, 40))
    Image.new("RGB", (30, 20), "red").save(root / "cat" / "red.png")
    assert survey(open_source(root)).facts.in_chans == 3


def test_unreadable_files_are_skipped_and_listed(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 4, "dog": 3})
    (root / "cat" / "2.png").write_text("text")
    (root / "dog" / "0.png").write_bytes(b"")
    surveyed = survey(open_source(root))
    assert surveyed.facts.skipped == (
        (str(root / "cat" / "2.png"), "not an image that Pillow can read"),
        (str(root / "dog" / "0.png"), "empty file"),
    )
    kept = np.sort(np.concatenate(list(surveyed.indices.values())))
    np.testing.assert_array_equal(kept, [0, 1, 3, 5, 6])


def test_test_ratio_is_the_requested_one_or_the_sources_or_a_fifth(make_arrays: MakeArrays) -> None:
    digits = open_source("digits")
    assert survey(digits).facts.test_ratio == 0.25
    assert abs(survey(digits).facts.num_test / 1797 - 0.25) < 0.03
    assert survey(digits, test_ratio=0.5).facts.test_ratio == 0.5
    assert survey(make_arrays(9, 9)).facts.test_ratio == DEFAULT_TEST_RATIO


def arrays_with_given_splits(make_arrays: MakeArrays, num_train: int, num_val: int, num_test: int = 0) -> ArraySource:
    source = make_arrays(num_train + num_val + num_test - 2, 2)
    splits = np.repeat(np.array(["train", "val", "test"], dtype="<U5"), [num_train, num_val, num_test])
    splits[-2:] = "train"
    source.splits = np.concatenate([splits[-2:], splits[:-2]])
    return source


def test_small_set_with_validation_images_loses_none_to_a_test_split(make_arrays: MakeArrays) -> None:
    facts = survey(arrays_with_given_splits(make_arrays, 250, 150)).facts
    assert (facts.num_train + facts.num_val, facts.num_test, facts.test_ratio) == (400, 0, 0.0)
    assert facts.reports_on_val


@pytest.mark.parametrize(
    ("sizes", "requested", "num_folds"),
    [((900, 100), None, 0), ((250, 150), 0.2, 0), ((250, 100, 50), None, 0), ((250, 150), None, 4)],
    ids=["1,000 images", "a test was asked for", "a test split is given", "folds"],
)
def test_otherwise_the_accuracy_is_reported_on_test_images(
    make_arrays: MakeArrays, sizes: tuple[int, ...], requested: float | None, num_folds: int
) -> None:
    source = arrays_with_given_splits(make_arrays, *sizes)
    facts = survey(source, test_ratio=requested, num_folds=num_folds).facts
    assert facts.num_test > 0
    assert not facts.reports_on_val


def test_progress_reaches_the_total(make_arrays: MakeArrays) -> None:
    seen: list[tuple[int, int]] = []
    survey(make_arrays(20, 21), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (41, 41)


def test_fingerprint_depends_on_content_labels_and_splits_but_not_on_names(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 6, "dog": 5})
    first = survey(open_source(root)).facts.fingerprint
    (root / "cat" / "0.png").rename(root / "cat" / "zzz.png")
    assert survey(open_source(root)).facts.fingerprint == first
    assert survey(open_source(root), split_seed=9).facts.fingerprint != first
    shutil.move(root / "cat" / "1.png", root / "dog" / "another.png")
    assert survey(open_source(root)).facts.fingerprint != first


def test_class_with_one_image_is_noted(make_arrays: MakeArrays) -> None:
    facts = survey(make_arrays(12, 1)).facts
    assert facts.notes == (
        "class 'class 1' has only one distinct image, used for training; add images to measure its accuracy",
    )


def test_class_without_a_readable_or_training_image_is_noted(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 4, "train/dog": 4, "train/owl": 1, "train/yak": 1, "test/cat": 1, "test/yak": 1})
    (root / "train" / "owl" / "0.png").write_text("text")
    (root / "train" / "yak" / "0.png").write_text("text")
    assert survey(open_source(root)).facts.notes == (
        "class 'owl' has no readable image, so it cannot be learned; add images or remove the class",
        "class 'yak' has no training image, so it cannot be learned; add some or remove the class",
    )


def test_copies_in_several_splits_or_classes_are_noted(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 5, "train/dog": 5, "val/cat": 1, "test/cat": 3, "test/dog": 1})
    for number in (1, 2):
        shutil.copy(root / "train" / "cat" / f"{number}.png", root / "test" / "cat" / f"{number}.png")
    shutil.copy(root / "train" / "cat" / "3.png", root / "train" / "dog" / "copy.png")
    assert survey(open_source(root)).facts.notes == (
        "2 test images also in train, byte for byte: test accuracy is optimistic; remove the copies",
        "1 image in several classes, byte for byte; keep only the right class",
    )


def test_notes_of_the_source_come_first(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 8, "dog": 1, "empty": 0})
    notes = survey(open_source(root)).facts.notes
    assert notes[0] == f"{root / 'empty'}: ignored, because it holds no image file"
    assert len(notes) == 2


def test_set_without_a_readable_image_is_an_error(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 0, "dog": 0})
    (root / "cat" / "0.png").write_text("text")
    (root / "dog" / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        survey(open_source(root))
    assert str(caught.value) == (
        f"data.source=set: none of 2 files is a readable image (the first, {root / 'cat' / '0.png'}: "
        "not an image that Pillow can read); check them"
    )


def test_set_with_only_one_readable_class_is_an_error(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 3, "dog": 0})
    (root / "dog" / "0.png").write_text("text")
    with pytest.raises(DataError) as caught:
        survey(open_source(root))
    assert str(caught.value) == (
        "data.source=set: has readable images of only one class, 'cat' (1 of 4 files unreadable); add images of "
        "another class"
    )


def test_set_whose_labeled_images_are_unreadable_is_an_error(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2})
    (root / "bad.png").write_text("text")
    (root / "t.csv").write_text("path,cat,dog\na/0.png,0,0\na/1.png,0,0\nbad.png,1,1\n")
    with pytest.raises(DataError, match=r"^data.source=t: has readable images without labels only \(1 of 3 files unre"):
        survey(open_source(root / "t.csv"))


def test_file_with_a_good_header_and_damaged_pixels_does_not_stop_the_survey(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 30, "dog": 30})
    content = (root / "cat" / "7.png").read_bytes()
    (root / "cat" / "7.png").write_bytes(content[: len(content) // 2])
    facts = survey(open_source(root), test_ratio=0.0, val_ratio=0.0).facts
    assert facts.num_train == 60
    assert "of 59 thumbnails" in facts.mirror_reason
