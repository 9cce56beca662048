"""Files that stand out: unreadable, empty of content, several pictures in one, odd sizes and shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.misfits import file_findings
from vitreous.data.doctor.summaries import Looks
from vitreous.data.sources import ArraySource


@pytest.fixture
def findings(
    make_looks: Callable[..., Looks], make_arrays: Callable[..., ArraySource]
) -> Callable[..., dict[str, Finding]]:
    """Findings by kind, of six images of class 0 and four of class 1."""

    def find(**fields: Any) -> dict[str, Finding]:
        looks = make_looks([0] * 6 + [1] * 4, **fields)
        return {finding.kind: finding for finding in file_findings(looks, Namer(make_arrays(6, 4), looks))}

    return find


def _indices(finding: Finding) -> list[int]:
    return [sample.index for (sample,) in finding.samples]


def test_ordinary_files_are_not_mentioned(findings: Callable[..., dict[str, Finding]]) -> None:
    assert findings() == {}


def test_unreadable_files_are_named_with_their_reasons(
    make_looks: Callable[..., Looks], make_arrays: Callable[..., ArraySource]
) -> None:
    looks = make_looks([0, 1], indices=[0, 4], unreadable=((1, "cut short"), (2, "empty file"), (3, "cut short")))
    (finding,) = file_findings(looks, Namer(make_arrays(2, 3), looks))
    assert (finding.kind, finding.severity, finding.share) == ("unreadable", "warning", 0.6)
    assert finding.title == "3 files do not decode"
    assert finding.detail == "Training leaves them out: cut short (2) and empty file."
    assert [(sample.index, sample.remark) for (sample,) in finding.samples] == [
        (1, "cut short"), (2, "empty file"), (3, "cut short"),
    ]  # fmt: skip


def test_images_of_one_colour_and_nearly_so_are_told_apart(findings: Callable[..., dict[str, Finding]]) -> None:
    stds = np.full((10, 3), 40.0)
    stds[2], stds[7], stds[8] = 0, (0.5, 1.5, 0), (0, 0, 3)  # the last shows something in blue
    found = findings(stds=stds)
    assert list(found) == ["constant"]
    assert found["constant"].title == "2 images show nothing"
    assert found["constant"].detail == "1 of one colour, 1 nearly so; in 'class 0' (1) and 'class 1' (1)."
    assert _indices(found["constant"]) == [2, 7]


def test_files_of_several_pictures_are_told(findings: Callable[..., dict[str, Finding]]) -> None:
    kinds = ["PNG RGB"] * 9 + ["GIF P (first of several)"]
    found = findings(kinds=kinds)
    assert list(found) == ["several-pictures"]
    assert found["several-pictures"].title == "1 file holds several pictures"
    assert _indices(found["several-pictures"]) == [9]


def test_far_larger_and_far_smaller_images_come_worst_first(findings: Callable[..., dict[str, Finding]]) -> None:
    sizes = np.full((10, 2), 100)
    sizes[3], sizes[5], sizes[8], sizes[9] = (450, 450), (3000, 4000), (20, 20), (390, 390)
    found = findings(sizes=sizes)
    assert list(found) == ["far-larger", "far-smaller"]
    assert _indices(found["far-larger"]) == [5, 3]
    assert found["far-larger"].detail == "Up to 3000x4000 px, where the median is 100x100 px; in 'class 0' (2)."
    assert found["far-larger"].samples[0][0].remark == "3000x4000 px"
    assert _indices(found["far-smaller"]) == [8]
    assert found["far-smaller"].detail.startswith("Down to 20x20 px, ")


def test_odd_shapes_are_measured_against_the_median_shape(findings: Callable[..., dict[str, Finding]]) -> None:
    sizes = np.tile([100, 150], (10, 1))
    sizes[1], sizes[4], sizes[6] = (50, 170), (130, 60), (100, 280)
    found = findings(sizes=sizes)
    assert list(found) == ["odd-aspect"]
    assert _indices(found["odd-aspect"]) == [4, 1]
    assert found["odd-aspect"].detail.startswith("The oddest is 130x60 px, where width by height is 1.50 ")
