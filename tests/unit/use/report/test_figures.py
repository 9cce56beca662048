"""Figures: well-formed SVG for any class names and any records."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from vitreous.use.report.figures import draw_confusion, draw_curves, draw_operating_curves

SVG = "{http://www.w3.org/2000/svg}"


def _texts(svg: str) -> list[str]:
    """Return the texts in a figure; raises if it is not well-formed XML."""
    return ["".join(element.itertext()).strip() for element in ET.fromstring(svg).iter(f"{SVG}text")]


def _step(step: int, **fields: object) -> dict[str, object]:
    return {"kind": "step", "step": step, "epoch": step / 4, "loss": 1.0, "accuracy": 0.5, **fields}


def _evaluation(step: int, weights: str, **fields: object) -> dict[str, object]:
    values = {"kind": "evaluation", "step": step, "epoch": step / 4, "weights": weights, "loss": 0.9, "accuracy": 0.6}
    return {**values, **fields}


@pytest.mark.parametrize("name", ['<b>&"', "$x_1$", r"$\nonsense{$", "猫", "مرحبا", "Äpfel", "]]>", "a%s"])
def test_class_names_are_written_literally(name: str) -> None:
    assert name in _texts(draw_confusion(np.array([[3, 1], [0, 2]]), [name, "plain"]))


def test_long_and_multiline_names_are_shortened_to_one_line() -> None:
    texts = _texts(draw_confusion(np.array([[3, 1], [0, 2]]), ["a" * 80, "two\nlines"]))
    assert "a" * 15 + "…" + "a" * 8 in texts
    assert "two lines" in texts


def test_confusion_matrix_shows_every_count_except_zero_and_its_share_of_the_row() -> None:
    texts = _texts(draw_confusion(np.array([[11, 0, 4], [0, 12, 0], [7, 0, 13]]), ["x", "y", "z"]))
    assert sorted(text for text in texts if text.endswith("%")) == ["100%", "27%", "35%", "65%", "73%"]
    assert sorted(text for text in texts if text.isdigit()) == ["11", "12", "13", "4", "7"]
    assert {"true class", "predicted class"} <= set(texts)


def test_names_are_left_out_if_they_would_overlap() -> None:
    names = [f"class{number}" for number in range(31)]
    assert not any(text.startswith("class") for text in _texts(draw_confusion(np.eye(31, dtype=np.int64), names)))


def test_class_without_images_is_an_empty_row() -> None:
    texts = _texts(draw_confusion(np.array([[5, 0], [0, 0]]), ["seen", "unseen"]))
    assert {"seen", "unseen", "5"} <= set(texts)


def test_operating_curves_show_their_areas_and_axes() -> None:
    points = [(0.0, 0.0, None), (0.25, 0.5, 0.7), (1.0, 1.0, 0.1)]
    curves = {"class": "x", "roc_auc": 0.8125, "average_precision": 0.6, "roc": points, "precision_recall": points}
    texts = _texts(draw_operating_curves(curves))
    assert {"ROC, area 0.812", "average precision 0.600", "false positive rate", "precision"} <= set(texts)
    assert texts.count("recall") == 2


def test_curves_have_a_legend() -> None:
    records = [_step(1), _step(2, loss=0.5), _evaluation(2, "trained"), _evaluation(2, "average")]
    texts = _texts(draw_curves(records))
    assert {"loss", "accuracy", "epoch", "training (augmented)", "validation"} <= set(texts)
    assert "validation, averaged weights" in texts


def test_curves_without_validation_show_only_training() -> None:
    texts = _texts(draw_curves([_step(1), _step(2)]))
    assert "training (augmented)" in texts
    assert not any(text.startswith("validation") for text in texts)


def test_curves_without_records_are_empty_axes() -> None:
    assert {"loss", "accuracy"} <= set(_texts(draw_curves([])))


def test_non_finite_values_leave_a_gap() -> None:
    with_gap = [
        _step(1),
        _step(2, loss="nan"),
        _step(3),
        _evaluation(2, "average", loss="inf"),
        _evaluation(3, "average"),
    ]
    without = [_step(1), _step(3), _evaluation(3, "average")]
    assert _line_lengths(draw_curves(with_gap))[0] == _line_lengths(draw_curves(without))[0]


def test_last_record_of_a_step_is_drawn() -> None:
    again = [_step(1, loss=9.0), _step(2, loss=9.0), _step(1, loss=1.0), _step(2, loss=0.5)]
    assert draw_curves(again) == draw_curves([_step(1, loss=1.0), _step(2, loss=0.5)])


def test_same_records_give_the_same_bytes() -> None:
    assert draw_curves([_step(1), _step(2)]) == draw_curves([_step(1), _step(2)])


def test_figures_load_nothing_from_outside() -> None:
    for svg in (draw_curves([_step(1)]), draw_confusion(np.eye(3, dtype=np.int64), ["a", "b", "c"])):
        links = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(link.startswith(("data:", "#")) for link in links)
        assert "url(http" not in svg
        assert "matplotlib.org" not in svg


def _line_lengths(svg: str) -> list[int]:
    """Return the number of points of each line, loss first."""
    lines = re.findall(r'<path d="(M [^"]*)" clip-path=', svg)
    return [len(re.findall("[ML]", line)) for line in lines]
