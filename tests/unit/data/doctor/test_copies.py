"""Copies: across splits, across classes and the rest, each group told once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.copies import Copies, copy_findings, group_copies
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.summaries import Looks
from vitreous.data.sources import ArraySource

MakeLooks = Callable[..., Looks]


@pytest.fixture
def findings(make_looks: MakeLooks, make_arrays: Callable[..., ArraySource]) -> Callable[..., dict[str, Finding]]:
    """Findings by kind, of five images of class 0 and five of class 1."""

    def find(groups: Sequence[Sequence[int]], given: str = "", **fields: Any) -> dict[str, Finding]:
        looks = make_looks(fields.pop("labels", [0] * 5 + [1] * 5), **fields)
        copies = Copies(tuple(np.array(group) for group in groups), ())
        found = copy_findings(looks, copies, Namer(make_arrays(5, 5, given=given), looks))
        return {finding.kind: finding for finding in found}

    return find


def _members(finding: Finding) -> list[list[int]]:
    return [[sample.index for sample in group] for group in finding.samples]


def test_equal_bytes_and_equal_looks_are_one_group(make_looks: MakeLooks) -> None:
    looks = make_looks([0] * 8)
    looks.contents[5] = looks.contents[2]
    looks.gray[[5, 7]], looks.colour[[5, 7]] = looks.gray[2], looks.colour[2]  # 7 has other bytes
    copies = group_copies(looks)
    assert [group.tolist() for group in copies.groups] == [[2, 5, 7]]
    assert [group.tolist() for group in copies.exact] == [[2, 5]]


def test_without_copies_there_is_nothing_to_say(
    make_looks: MakeLooks, findings: Callable[..., dict[str, Finding]]
) -> None:
    assert group_copies(make_looks([0] * 8)).groups == ()
    assert findings([]) == {}


def test_copies_on_both_sides_are_counted_by_split(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 5 + ["val", "test", "test", "train", "train"]
    contents = [0, 1, 2, 3, 4, 0, 6, 7, 8, 9]
    labels = np.zeros(10, dtype=np.int64)
    found = findings([[0, 5], [1, 6, 7]], splits=splits, contents=contents, labels=labels)
    assert list(found) == ["copies-across-splits"]
    leak = found["copies-across-splits"]
    assert (leak.severity, leak.share) == ("fault", 0.3)
    assert leak.title == "1 val and 2 test images have copies among the training images"
    assert leak.detail.startswith("1 exact and 2 re-encoded, resized or with other brightness; ")
    assert _members(leak) == [[0, 5], [1, 6, 7]]


def test_advice_depends_on_who_made_the_split(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 9 + ["test"]
    made, given = (findings([[5, 9]], given, splits=splits)["copies-across-splits"] for given in ("", "test"))
    assert made.advice == "Keep one image of each group, then every copy is on one side."
    assert given.advice == "Remove them from the held-out folders, or their copies from train."
    assert made.title == "1 test image has a copy among the training images"


def test_copies_within_the_held_out_images_alone_are_no_leak(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 5 + ["val"] * 5
    assert list(findings([[6, 7]], splits=splits)) == ["near-copies"]


def test_copies_in_two_classes_name_both(findings: Callable[..., dict[str, Finding]]) -> None:
    found = findings([[1, 7], [2, 8, 9]])
    assert list(found) == ["copies-across-classes"]
    conflict = found["copies-across-classes"]
    assert (conflict.severity, conflict.share) == ("fault", 0.5)
    assert conflict.title == "5 images are copies of each other in different classes"
    assert conflict.detail == "2 groups, between 'class 0 / class 1': of each, all labels but one are wrong."


def test_a_group_that_is_both_is_told_as_both(findings: Callable[..., dict[str, Finding]]) -> None:
    splits = ["train"] * 9 + ["test"]
    assert list(findings([[0, 9]], splits=splits)) == ["copies-across-splits", "copies-across-classes"]


def test_exact_and_near_copies_are_apart(findings: Callable[..., dict[str, Finding]]) -> None:
    contents = [0, 0, 0, 3, 4, 5, 6, 7, 7, 9]
    found = findings([[0, 1, 2], [3, 4], [7, 8, 9]], contents=contents)
    assert list(found) == ["exact-copies", "near-copies"]
    assert found["exact-copies"].title == "2 files are exact copies of another"
    assert found["near-copies"].title == "3 images are near copies of another"
    assert _members(found["exact-copies"]) == [[0, 1, 2]]
    assert _members(found["near-copies"]) == [[3, 4], [7, 8, 9]]
