"""Findings about classes, splits, groups and labels: planted problems are found, ordinary data has no findings."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.diagnose import class_findings, label_findings, source_findings
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.mislabeled import LabelDoubts
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.sources import ArraySource
from vitreous.data.survey.facts import survey

MakeArrays = Callable[..., ArraySource]


@pytest.fixture
def findings(
    make_summaries: Callable[..., ImageSummaries], make_arrays: MakeArrays
) -> Callable[..., dict[str, list[Finding]]]:
    """Return findings by kind, for the given number of images per class."""

    def find(*counts: int, **fields: Any) -> dict[str, list[Finding]]:
        summaries = make_summaries(np.repeat(np.arange(len(counts)), counts).tolist(), **fields)
        found: dict[str, list[Finding]] = {}
        for finding in class_findings(summaries, Namer(make_arrays(*counts), summaries)):
            found.setdefault(finding.kind, []).append(finding)
        return found

    return find


def test_ordinary_classes_have_no_findings(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    assert findings(30, 25, 20) == {}


def test_classes_with_few_or_no_training_images_are_reported(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    splits = ["train"] * 12 + ["train"] * 9 + ["test"] * 4
    none, few = findings(12, 9, 4, splits=splits)["few-images"]
    assert (none.severity, none.title) == ("fault", "1 class has no training images")
    assert none.detail == "Training images per class: 'class 2' (0)."
    assert (few.severity, few.title) == ("warning", "1 class has fewer than 10 training images")
    assert few.detail == "Training images per class: 'class 1' (9)."


@pytest.mark.parametrize(("counts", "severity"), [((30, 11), None), ((60, 15), "note"), ((130, 12, 40), "warning")])
def test_uneven_classes_are_judged_by_their_ratio(
    counts: tuple[int, ...], severity: str | None, findings: Callable[..., dict[str, list[Finding]]]
) -> None:
    found = findings(*counts)
    assert [f.severity for f in found.get("uneven-classes", [])] == ([severity] if severity else [])
    if severity == "warning":
        (uneven,) = found["uneven-classes"]
        assert uneven.title == "The largest class has 10.8 times the training images of the smallest"
        assert uneven.detail.startswith("'class 0' has 130 and 'class 1' has 12; ")


def test_file_type_that_reveals_the_class_is_reported(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    (shortcut,) = findings(20, 15, kinds=["PNG RGB"] * 19 + ["JPEG RGB"] * 16)["given-away"]
    assert shortcut.title == "The file type reveals the class: 100% of the files of type PNG RGB are 'class 0'"
    assert shortcut.detail == (
        "Guessing the class from the file type is right for 97% of the images, always guessing the largest class for "
        "57%, so the model may learn this shortcut."
    )


def test_color_and_size_that_reveal_the_class_are_reported(
    findings: Callable[..., dict[str, list[Finding]]],
) -> None:
    sizes = np.array([[32, 48]] * 15 + [[64, 48]] * 20)
    color = np.random.default_rng(0).integers(0, 256, (35, 8, 8, 3), dtype=np.uint8)
    color[:15] = color[:15, :, :, :1]
    titles = [f.title for f in findings(15, 20, sizes=sizes, color=color)["given-away"]]
    assert titles == [
        "The presence of color reveals the class: 100% of the images with color are 'class 1'",
        "The image size reveals the class: 100% of the images of 64x48 px are 'class 1'",
    ]


def test_sizes_that_fit_the_class_by_chance_are_not_a_shortcut(
    findings: Callable[..., dict[str, list[Finding]]],
) -> None:
    labels, number = np.repeat(np.arange(4), 15), np.random.default_rng(0).permutation(60) % 12
    table = np.zeros((12, 4))
    np.add.at(table, (number, labels), 1)
    assert table.max(axis=1).sum() / 60 > 0.5  # the most frequent class of each size, although it says nothing
    assert "given-away" not in findings(15, 15, 15, 15, sizes=np.stack([number + 50, number + 50], axis=1))


def test_sizes_that_are_all_different_are_not_a_shortcut(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    assert findings(20, 15, sizes=np.arange(70).reshape(35, 2) + 50) == {}


@pytest.mark.parametrize(("has_bands", "where"), [(False, "green"), (True, "band 2")])
def test_brighter_test_split_is_reported(
    findings: Callable[..., dict[str, list[Finding]]], has_bands: bool, where: str
) -> None:
    means = np.full((60, 3), 100.0) + np.random.default_rng(1).normal(0, 10, (60, 3))
    splits = np.array(["train"] * 20 + ["test"] * 10).repeat(2)
    means[splits == "test", 1] += 30
    (drift,) = findings(30, 30, means=means, splits=splits, has_bands=has_bands)["drift"]
    train, test = (means[splits == split, 1] for split in ("train", "test"))
    shift = (test.mean() - train.mean()) / train.std()
    assert drift.title == (
        f"The brightness of test images differs from training images by {shift:.1f} standard deviations"
    )
    assert drift.detail == (
        f"The mean brightness ({where}, 0 to 255) is {test.mean():.0f} in test images and {train.mean():.0f} in "
        "training images."
    )
    assert drift.share == pytest.approx(20 / 60)


def test_small_difference_between_few_images_is_not_reported(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    means = np.full((40, 3), 100.0) + np.random.default_rng(1).normal(0, 10, (40, 3))
    splits = ["train"] * 35 + ["val"] * 5
    assert findings(20, 20, means=means, splits=splits) == {}


# Findings about the source.


def test_notes_of_the_source_become_findings(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12)
    source.notes = ("cats/: holds no image file; left out",)
    (found,) = source_findings(survey(source))
    assert (found.kind, found.severity, found.title) == ("listing", "warning", "cats/: holds no image file; left out")


def test_groups_in_several_splits_are_counted(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12)
    source.splits = np.array((["train"] * 9 + ["test"] * 3) * 2)
    source.groups = np.array([f"person {n}" for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 9)] * 2)
    (found,) = source_findings(survey(source))
    assert (found.kind, found.severity) == ("torn-groups", "fault")
    assert found.title == "2 groups have both training and held-out images"


# Findings about labels.


def _doubts(accuracy: float, count: int) -> LabelDoubts:
    some = np.arange(count)
    return LabelDoubts(accuracy, 0.25, 20, some + 3, np.ones(count, dtype=np.int64), 0.9 - 0.1 * some)


def test_doubtful_labels_are_reported_with_a_more_likely_class(
    make_summaries: Callable[..., ImageSummaries], make_arrays: MakeArrays
) -> None:
    namer = Namer(make_arrays(10, 10), make_summaries([0] * 10 + [1] * 10))
    (found,) = label_findings(_doubts(0.9, 2), "a cross-validated regression on thumbnails", namer)
    assert (found.kind, found.severity, found.share) == ("doubtful-labels", "warning", 0.1)
    assert found.title == "2 images may be mislabeled"
    assert found.detail.startswith(
        "A cross-validated regression on thumbnails classifies 90% of all images correctly (always guessing the "
        "largest class: 25%), but assigns "
    )
    assert [(s.index, s.remark) for (s,) in found.samples] == [
        (3, "looks like class 1, 90%"), (4, "looks like class 1, 80%"),
    ]  # fmt: skip


def test_doubts_of_an_inaccurate_regression_are_only_a_note(
    make_summaries: Callable[..., ImageSummaries], make_arrays: MakeArrays
) -> None:
    namer = Namer(make_arrays(10, 10), make_summaries([0] * 10 + [1] * 10))
    (found,) = label_findings(_doubts(0.7, 1), "a model", namer)
    assert (found.severity, found.title) == ("note", "1 image may be mislabeled")
    assert not list(label_findings(dataclasses.replace(_doubts(0.9, 0)), "a model", namer))
