"""Classes, splits, groups and labels: each fault that is planted is named, and an ordinary set is left in peace."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.diagnose import class_findings, label_finding, source_findings
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.mislabeled import Doubts
from vitreous.data.doctor.summaries import Looks
from vitreous.data.sources import ArraySource
from vitreous.data.survey.facts import survey

MakeArrays = Callable[..., ArraySource]


@pytest.fixture
def findings(make_looks: Callable[..., Looks], make_arrays: MakeArrays) -> Callable[..., dict[str, list[Finding]]]:
    """Findings by kind, of so many images of each class."""

    def find(*counts: int, **fields: Any) -> dict[str, list[Finding]]:
        looks = make_looks(np.repeat(np.arange(len(counts)), counts).tolist(), **fields)
        found: dict[str, list[Finding]] = {}
        for finding in class_findings(looks, Namer(make_arrays(*counts), looks)):
            found.setdefault(finding.kind, []).append(finding)
        return found

    return find


def test_ordinary_classes_are_not_mentioned(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    assert findings(30, 25, 20) == {}


def test_classes_with_few_training_images_are_named(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    splits = ["train"] * 12 + ["train"] * 9 + ["test"] * 4
    none, few = findings(12, 9, 4, splits=splits)["few-images"]
    assert (none.severity, none.title) == ("fault", "1 class has no training image")
    assert none.detail == "Namely 'class 2' (0)."
    assert (few.severity, few.title) == ("warning", "1 class has fewer than 10 training images")
    assert few.detail == "Namely 'class 1' (9)."


@pytest.mark.parametrize(("counts", "severity"), [((30, 11), None), ((60, 15), "note"), ((130, 12, 40), "warning")])
def test_uneven_classes_are_judged_by_their_ratio(
    counts: tuple[int, ...], severity: str | None, findings: Callable[..., dict[str, list[Finding]]]
) -> None:
    found = findings(*counts)
    assert [f.severity for f in found.get("uneven-classes", [])] == ([severity] if severity else [])
    if severity == "warning":
        (uneven,) = found["uneven-classes"]
        assert uneven.title == "the largest class has 10.8 times the images of the smallest"
        assert uneven.detail.startswith("'class 0' has 130 to train, 'class 1' 12;")


def test_kind_of_file_that_tells_the_class_is_named(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    (told,) = findings(20, 15, kinds=["PNG RGB"] * 20 + ["JPEG RGB"] * 15)["given-away"]
    assert told.title == "the kind of file of an image tells its class"
    assert told.detail == (
        "Guessing from it alone is right 43% more often than from nothing; e.g. 100% of what is PNG RGB is 'class 0'."
    )


def test_size_and_lack_of_colour_that_tell_the_class_are_named(
    findings: Callable[..., dict[str, list[Finding]]],
) -> None:
    sizes = np.array([[32, 48]] * 15 + [[64, 48]] * 20)
    colour = np.random.default_rng(0).integers(0, 256, (35, 8, 8, 3), dtype=np.uint8)
    colour[:15] = colour[:15, :, :, :1]
    titles = [f.title for f in findings(15, 20, sizes=sizes, colour=colour)["given-away"]]
    assert titles == ["the lack of colour of an image tells its class", "the size of an image tells its class"]


def test_sizes_that_are_all_different_tell_nothing(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    assert findings(20, 15, sizes=np.arange(70).reshape(35, 2) + 50) == {}


def test_a_brighter_test_split_is_named(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    means = np.full((60, 3), 100.0) + np.random.default_rng(1).normal(0, 10, (60, 3))
    splits = np.array(["train"] * 20 + ["test"] * 10).repeat(2)
    means[splits == "test", 1] += 30
    (drift,) = findings(30, 30, means=means, splits=splits)["drift"]
    assert drift.title == "test images differ from training images in brightness"
    assert drift.detail.startswith("Mean brightness (green) is 1")
    assert drift.share == pytest.approx(20 / 60)


def test_a_small_difference_of_few_images_is_chance(findings: Callable[..., dict[str, list[Finding]]]) -> None:
    means = np.full((40, 3), 100.0) + np.random.default_rng(1).normal(0, 10, (40, 3))
    splits = ["train"] * 35 + ["val"] * 5
    assert findings(20, 20, means=means, splits=splits) == {}


# What the listing said.


def test_notes_of_the_source_are_findings(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12)
    source.notes = ("cats/: holds no image file; left out",)
    (found,) = source_findings(survey(source))
    assert (found.kind, found.severity, found.title) == ("listing", "warning", "cats/: holds no image file; left out")


def test_groups_on_both_sides_are_counted(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12)
    source.splits = np.array((["train"] * 9 + ["test"] * 3) * 2)
    source.groups = np.array([f"person {n}" for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 9)] * 2)
    (found,) = source_findings(survey(source))
    assert (found.kind, found.severity) == ("torn-groups", "fault")
    assert found.title == "2 groups stand in train and in val or test"


# Labels.


def _doubts(accuracy: float, count: int) -> Doubts:
    some = np.arange(count)
    return Doubts(accuracy, 20, some + 3, np.ones(count, dtype=np.int64), 0.9 - 0.1 * some)


def test_doubted_labels_say_what_they_look_like(make_looks: Callable[..., Looks], make_arrays: MakeArrays) -> None:
    namer = Namer(make_arrays(10, 10), make_looks([0] * 10 + [1] * 10))
    (found,) = label_finding(_doubts(0.9, 2), "thumbnails", namer)
    assert (found.kind, found.severity, found.share) == ("doubtful-labels", "warning", 0.1)
    assert found.title == "2 images look like another class"
    assert found.detail.startswith("A regression on thumbnails, cross-validated, is right on 90% of the images")
    assert [(s.index, s.remark) for (s,) in found.samples] == [
        (3, "looks like class 1 (0.90)"), (4, "looks like class 1 (0.80)"),
    ]  # fmt: skip


def test_a_regression_that_errs_often_only_notes(make_looks: Callable[..., Looks], make_arrays: MakeArrays) -> None:
    namer = Namer(make_arrays(10, 10), make_looks([0] * 10 + [1] * 10))
    (found,) = label_finding(_doubts(0.7, 2), "thumbnails", namer)
    assert found.severity == "note"
    assert label_finding(dataclasses.replace(_doubts(0.9, 0)), "thumbnails", namer) == []
