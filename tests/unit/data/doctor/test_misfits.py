"""file_findings: unreadable and blank images, files with several pictures, unusual sizes and shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.misfits import file_findings
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.sources import ArraySource


@pytest.fixture
def findings(
    make_summaries: Callable[..., ImageSummaries], make_arrays: Callable[..., ArraySource]
) -> Callable[..., dict[str, Finding]]:
    """Return findings by kind, for six images of class 0 and four of class 1."""

    def find(**fields: Any) -> dict[str, Finding]:
        summaries = make_summaries([0] * 6 + [1] * 4, **fields)
        return {finding.kind: finding for finding in file_findings(summaries, Namer(make_arrays(6, 4), summaries))}

    return find


def _indices(finding: Finding) -> list[int]:
    return [sample.index for (sample,) in finding.samples]


def test_ordinary_files_have_no_findings(findings: Callable[..., dict[str, Finding]]) -> None:
    assert findings() == {}


def test_unreadable_files_are_reported_with_their_reasons(
    make_summaries: Callable[..., ImageSummaries], make_arrays: Callable[..., ArraySource]
) -> None:
    summaries = make_summaries(
        [0, 1], indices=[0, 4], unreadable=((1, "cut short"), (2, "empty file"), (3, "cut short"))
    )
    (finding,) = file_findings(summaries, Namer(make_arrays(2, 3), summaries))
    assert (finding.kind, finding.severity, finding.share) == ("unreadable", "warning", 0.6)
    assert finding.title == "3 files cannot be decoded"
    assert finding.detail == "Training skips them: cut short (2) and empty file."
    assert [(sample.index, sample.remark) for (sample,) in finding.samples] == [
        (1, "cut short"), (2, "empty file"), (3, "cut short"),
    ]  # fmt: skip


def test_blank_images_are_counted_by_one_color_or_almost_one(findings: Callable[..., dict[str, Finding]]) -> None:
    stds = np.full((10, 3), 40.0)
    stds[2], stds[7], stds[8] = 0, (0.5, 1.5, 0), (0, 0, 3)  # the last one has contrast in blue
    found = findings(stds=stds)
    assert list(found) == ["constant"]
    assert found["constant"].title == "2 images are blank"
    assert (
        found["constant"].detail == "1 with a single color and 1 with almost one, in 'class 0' (1) and 'class 1' (1)."
    )
    assert _indices(found["constant"]) == [2, 7]


def test_files_with_several_pictures_are_reported(findings: Callable[..., dict[str, Finding]]) -> None:
    kinds = ["PNG RGB"] * 9 + ["GIF P (first of several)"]
    found = findings(kinds=kinds)
    assert list(found) == ["several-pictures"]
    assert found["several-pictures"].title == "1 file contains several pictures"
    assert _indices(found["several-pictures"]) == [9]


def test_far_larger_and_smaller_images_come_most_extreme_first(
    findings: Callable[..., dict[str, Finding]],
) -> None:
    sizes = np.full((10, 2), 100)
    sizes[3], sizes[5], sizes[8], sizes[9] = (450, 450), (3000, 4000), (20, 20), (390, 390)
    found = findings(sizes=sizes)
    assert list(found) == ["far-larger", "far-smaller"]
    assert _indices(found["far-larger"]) == [5, 3]
    assert found["far-larger"].title == "2 images are far larger than the others"
    assert found["far-larger"].detail == (
        "The largest is 3000x4000 px and the median is 100x100 px (height x width); in 'class 0' (2)."
    )
    assert found["far-larger"].samples[0][0].remark == "3000x4000 px"
    assert _indices(found["far-smaller"]) == [8]
    assert found["far-smaller"].title == "1 image is far smaller than the others"
    assert found["far-smaller"].detail.startswith("The smallest is 20x20 px and ")


def test_unusual_shapes_are_compared_with_the_median_shape(findings: Callable[..., dict[str, Finding]]) -> None:
    sizes = np.tile([100, 150], (10, 1))
    sizes[1], sizes[4], sizes[6] = (50, 170), (130, 60), (100, 280)
    found = findings(sizes=sizes)
    assert list(found) == ["odd-aspect"]
    assert _indices(found["odd-aspect"]) == [4, 1]
    assert found["odd-aspect"].title == "2 images are much wider or taller than the others"
    assert found["odd-aspect"].detail == (
        "The most extreme is 130x60 px (height x width); the median of width / height is 1.50."
    )
