"""Findings are ranked by severity and name the images they are about."""

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from vitreous.data.doctor.findings import Finding, Namer, Severity, ranked
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.sources import ArraySource
from vitreous.wording import listed, plural


def _finding(severity: Severity, share: float, kind: str = "x") -> Finding:
    return Finding(kind, severity, "a title", "Some detail.", "Do it.", share)


def test_fault_in_few_images_ranks_above_note_on_all_images() -> None:
    found = [_finding("note", 1.0), _finding("warning", 1.0), _finding("fault", 0.001), _finding("fault", 0.5)]
    assert [(f.severity, f.share) for f in ranked(found)] == [
        ("fault", 0.5), ("fault", 0.001), ("warning", 1.0), ("note", 1.0),
    ]  # fmt: skip


def test_equal_findings_keep_their_order() -> None:
    assert [f.kind for f in ranked([_finding("note", 0.2, "b"), _finding("note", 0.2, "a")])] == ["b", "a"]


def test_sentence_joins_title_detail_and_advice() -> None:
    assert _finding("note", 1.0).sentence == "a title. Some detail. Do it."
    assert Finding("x", "note", "a title", "", "Do it.", 1.0).sentence == "a title. Do it."


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_345, "12,345 images")]
)
def test_plural_agrees_with_the_count(count: int, text: str) -> None:
    assert plural(count, "image") == text


def test_plural_accepts_an_irregular_form() -> None:
    assert (plural(1, "copy", "copies"), plural(3, "copy", "copies")) == ("1 copy", "3 copies")


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"),
     (["a", "b", "c", "d", "e"], "a, b, c and 2 more")],
)  # fmt: skip
def test_listed_joins_names_and_counts_the_rest(names: list[str], text: str) -> None:
    assert listed(names, 3) == text


def test_samples_refer_to_the_source_even_if_some_images_are_unreadable(
    make_arrays: Callable[..., ArraySource], make_summaries: Callable[..., ImageSummaries]
) -> None:
    source = make_arrays(2, 3)
    summaries = make_summaries(
        [0, 1, 1], indices=[1, 2, 4], splits=["train", "", "test"], unreadable=((0, "cut"), (3, "empty"))
    )
    namer = Namer(source, summaries)
    ((sample,),) = namer.singles(np.array([2]))
    assert (sample.index, sample.where, sample.label, sample.split) == (4, "drawn[4]", "class 1", "test")
    assert [[s.index for s in group] for group in namer.groups([np.array([0, 2])])] == [[1, 4]]
    assert [(s.index, s.label, s.remark) for (s,) in namer.unreadable()] == [
        (0, "class 0", "cut"),
        (3, "class 1", "empty"),
    ]
    assert namer.share(1) == 0.2


def test_findings_can_be_written_as_json(
    make_arrays: Callable[..., ArraySource], make_summaries: Callable[..., ImageSummaries]
) -> None:
    namer = Namer(make_arrays(2, 3), make_summaries([0, 0, 1, 1, 1]))
    finding = Finding("x", "note", "t", "d", "a", 1.0, namer.groups([[0, 3]]))
    back = json.loads(json.dumps(asdict(finding)))
    assert back["samples"][0][1] == {
        "index": 3,
        "where": "drawn[3]",
        "label": "class 1",
        "split": "train",
        "remark": "",
    }
