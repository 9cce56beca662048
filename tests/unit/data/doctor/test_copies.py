"""copy_findings: every group of copies is reported as what it is, across splits, across classes or neither."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.copies import copy_findings, group_copies
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.sources import ArraySource

MakeSummaries = Callable[..., ImageSummaries]


@pytest.fixture
def findings(
    make_summaries: MakeSummaries, make_arrays: Callable[..., ArraySource]
) -> Callable[..., dict[str, Finding]]:
    """Return findings by kind, for five images of class 0 and five of class 1."""

    def find(groups: Sequence[Sequence[int]], given: str = "", **fields: Any) -> dict[str, Finding]:
        summaries = make_summaries(fields.pop("labels", [0] * 5 + [1] * 5), **fields)
        copies = tuple(np.array(group) for group in groups)
        found = copy_findings(copies, Namer(make_arrays(5, 5, given=given), summaries))
        return {finding.kind: finding for finding in found}

    return find


def _members(finding: Finding) -> list[list[int]]:
    return [[sample.index for sample in group] for group in finding.samples]


def test_exact_copies_and_near_duplicates_of_one_image_form_one_group(make_summaries: MakeSummaries) -> None:
    summaries = make_summaries([0] * 8)
    summaries.contents[5] = summaries.contents[2]
    summaries.gray[[5, 7]], summaries.color[[5, 7]] = summaries.gray[2], summaries.color[2]  # the bytes of 7 differ
    assert [group.tolist() for group in group_copies(summaries)] == [[2, 5, 7]]


def test_set_without_copies_has_no_findings(
    make_summaries: MakeSummaries, findings: Callable[..., dict[str, Finding]]
) -> None:
    assert group_copies(make_summaries([0] * 8)) == ()
    assert findings([]) == {}


def test_copies_of_training_images_are_counted_per_split(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 5 + ["val", "test", "test", "train", "train"]
    contents = [0, 1, 2, 3, 4, 0, 6, 7, 8, 9]
    labels = np.zeros(10, dtype=np.int64)
    found = findings([[0, 5], [1, 6, 7]], splits=splits, contents=contents, labels=labels)
    assert list(found) == ["copies-across-splits"]
    leak = found["copies-across-splits"]
    assert (leak.severity, leak.share) == ("fault", 0.3)
    assert leak.title == "1 validation image and 2 test images are copies of training images"
    assert leak.detail == (
        "1 is an exact copy and 2 are near-duplicates (re-encoded, resized, brightened or cropped), "
        "so validation and test accuracy is optimistic."
    )
    assert _members(leak) == [[0, 5], [1, 6, 7]]


def test_advice_depends_on_whether_the_split_was_given(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 9 + ["test"]
    made, given = (findings([[5, 9]], given, splits=splits)["copies-across-splits"] for given in ("", "test"))
    assert made.advice == "Keep only one image of each group."
    assert given.advice == "Remove either these images or their copies in the training split."
    assert made.title == "1 test image is a copy of a training image"
    assert made.detail.endswith(", so test accuracy is optimistic.")


def test_copies_among_held_out_images_are_not_a_leak(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 5 + ["val"] * 5
    assert list(findings([[6, 7]], splits=splits)) == ["near-copies"]


def test_copies_in_two_classes_are_reported_with_both_classes(findings: Callable[..., dict[str, Finding]]) -> None:
    found = findings([[1, 7], [2, 8, 9]])
    assert list(found) == ["copies-across-classes"]
    conflict = found["copies-across-classes"]
    assert (conflict.severity, conflict.share) == ("fault", 0.5)
    assert conflict.title == "5 images are copies of each other but have different labels"
    assert (
        conflict.detail
        == "2 groups of copies in the classes 'class 0 / class 1'; at most one label per group is right."
    )


def test_copies_across_splits_and_classes_are_reported_as_both(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 9 + ["test"]
    assert list(findings([[0, 9]], splits=splits)) == ["copies-across-splits", "copies-across-classes"]


def test_exact_copies_and_near_duplicates_are_reported_separately(findings: Callable[..., dict[str, Finding]]) -> None:
    contents = [0, 0, 0, 3, 4, 5, 6, 7, 7, 9]
    found = findings([[0, 1, 2], [3, 4], [7, 8, 9]], contents=contents)
    assert list(found) == ["exact-copies", "near-copies"]
    assert found["exact-copies"].title == "2 files are exact copies of other files"
    assert found["near-copies"].title == "3 images are near-duplicates of others"
    assert _members(found["exact-copies"]) == [[0, 1, 2]]
    assert _members(found["near-copies"]) == [[3, 4], [7, 8, 9]]


def test_singular_findings_read_well(findings: Callable[..., dict[str, Finding]]) -> None:
    contents = [0, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    found = findings([[0, 1], [3, 4]], contents=contents)
    assert found["exact-copies"].title == "1 file is an exact copy of another file"
    assert found["exact-copies"].detail.startswith("1 group of identical files, ")
    assert found["near-copies"].title == "1 image is a near-duplicate of another image"
    assert found["near-copies"].detail.startswith("1 group of images that were re-encoded, resized, brightened or ")
