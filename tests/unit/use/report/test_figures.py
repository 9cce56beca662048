"""Figures: well-formed SVG for any class names and any records."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from vitreous.use.evaluate.calibration import reliability_curve
from vitreous.use.report.figures import (
    draw_confusion,
    draw_curves,
    draw_lines,
    draw_operating_curves,
    draw_reliability,
)

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


def test_cells_of_a_confusion_matrix_let_the_color_of_the_page_through() -> None:
    svg = draw_confusion(np.array([[2, 0], [1, 1]]), ["x", "y"])
    (data,) = re.findall(r'"data:image/png;base64,\s*([^"]*)"', svg)
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))[..., 3]
    assert sorted(alpha[rows, columns] for rows in (0, -1) for columns in (0, -1)) == [0, 102, 102, 204]
    assert "#1a1a1a" not in svg
    assert "#ffffff" not in svg


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


CONTROLS = "a\x01\x0b\x7f\u202eb\ufffe"


@pytest.mark.parametrize("name", ["$x_1$", "<b>&", "_hidden", "two\nlines", CONTROLS, "مرحبا", "x" * 300])
def test_the_name_of_any_run_can_label_a_line(name: str) -> None:
    html = draw_lines("a", "loss", {f"1: {name}": [(0, 1), (1, 0.5)], "2: other": [(0, 2), (1, 1)]})
    texts = _texts(html[html.index("<svg") : html.index("</svg>") + 6])
    assert "2: other" in texts
    assert sum(text.startswith("1: ") for text in texts) == 1
    if len(name) < 20 and name != CONTROLS:
        assert f"1: {' '.join(name.split())}" in texts


def test_figures_of_a_page_do_not_share_ids_or_styles() -> None:
    lines = {"training": [(0.0, 1.0), (1.0, 0.5)], "validation": [(0.0, 1.0), (1.0, 0.7)]}
    pages = [draw_lines(name, "loss", lines) for name in ("one", "two")]
    pages.append(draw_confusion(np.eye(2, dtype=np.int64), ["a", "b"]))
    ids = [re.findall(r'\bid="([^"]+)"', page) for page in pages]
    assert sum(map(len, ids)) == len({name for found in ids for name in found}) > 20
    for page, own in zip(pages, ids, strict=True):
        used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)
        assert used
        assert {name for pair in used for name in pair if name} <= set(own)
        assert "<style" not in page
        assert not re.search(r"\sstyle=", page)


def test_figures_have_a_name_a_description_and_the_ink_of_the_page() -> None:
    svg = ET.fromstring(draw_lines("one", "loss", {"loss": [(0.0, 1.0), (1.0, 0.5)]})).find(f"{SVG}svg")
    assert svg is not None
    title, description = svg[0], svg[1]
    assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
    assert svg.get("role") == "img"
    assert title.text == "loss"
    colors = {value for element in svg.iter() for key, value in element.items() if key in ("fill", "stroke")}
    assert "currentColor" in colors
    assert not colors & {"#000000", "#222222", "#ffffff", "black", "white"}


def test_lines_differ_by_more_than_their_color() -> None:
    lines = {f"line {number}": [(0.0, float(number)), (1.0, 0.5)] for number in range(12)}
    svg = draw_lines("one", "loss", lines)
    found = re.findall(r'<path d="M [^"]*" clip-path="[^"]*"([^>]*)/>', svg)
    patterns = {re.sub(r"#[0-9a-f]{6}", "", attributes) for attributes in found}
    assert len(patterns) >= 4


def test_numbers_of_a_figure_are_in_its_table() -> None:
    html = draw_lines("one", "loss", {"<b>": [(0.0, 1.25), (2.0, 0.5)]})
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert cells == ["&lt;b&gt;", "0", "1.25", "&lt;b&gt;", "2", "0.5"]
    many = draw_lines("one", "loss", {"loss": [(float(n), 1.0) for n in range(5_000)]})
    assert many.count("<tr>") == 41
    assert "<td" in many
    assert "4999" in many


def test_reliability_is_drawn_with_the_number_of_images_of_each_probability() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.5, 1, 400)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    true = (draw.random(400) > confidence).astype(np.int64)
    html = draw_reliability(reliability_curve(probabilities, true))
    assert {"this model", "95% of calibrated models"} <= set(_texts(html))
    rows = re.findall(r"<td[^>]*>(\d+)% to [^<]*</td><td[^>]*>([\d.]+)%</td><td[^>]*>(\d+)</td>", html)
    expected = np.histogram(confidence, bins=10, range=(0, 1))[0]
    assert {int(start) // 10: int(count) for start, _, count in rows} == {
        number: count for number, count in enumerate(expected) if count
    }
    right = 1 - true
    for start, share, _ in rows:
        inside = (confidence >= int(start) / 100) & (confidence < int(start) / 100 + 0.1)
        assert float(share) / 100 == pytest.approx(right[inside].mean(), abs=0.1)
