"""The section on classes: well-formed for 2, 10 and 1,000 classes and any names, and similar classes are neighbors."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.evaluate.multilabel import score_each_label
from vitreous.use.report.section import ReportInput, Section
from vitreous.use.report.sections.classes import class_order, classes_section
from vitreous.use.run import Run


class Checked(HTMLParser):
    """HTML parser that collects texts, and fails if a tag is closed in the wrong order."""

    def __init__(self, section: Section) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed("".join(section.parts))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def evaluation(num_images: int, names: tuple[str, ...]) -> Evaluation:
    """Return the evaluation of a model that is right for about half of the images."""
    draws = np.random.default_rng(0)
    true = draws.integers(len(names), size=num_images)
    likely = draws.dirichlet(np.ones(len(names)), size=num_images)
    likely[np.arange(num_images), true] += 0.3
    likely /= likely.sum(axis=1, keepdims=True)
    predicted = likely.argmax(axis=1)
    score = Score(num_images, int((predicted == true).sum()), 1.0)
    return replace(count_classes("made", score, true, predicted, names), probabilities=likely)


@pytest.fixture
def report(run: Run) -> ReportInput:
    folder = RunFolder(run.path)
    return ReportInput(folder, read_config(folder.config), run.metadata, [], None, {})


def section_of(report: ReportInput, found: Evaluation) -> Section:
    """Return the section, whose numbers are valid JSON."""
    section = classes_section(replace(report, evaluation=found))
    assert section is not None
    json.dumps(section.numbers, allow_nan=False)
    return section


@pytest.mark.parametrize("num_classes", [1, 2, 10, 1_000])
def test_section_has_scores_mistakes_and_a_matrix_of_moderate_size(report: ReportInput, num_classes: int) -> None:
    found = evaluation(3 * num_classes + 40, tuple(f"class {number}" for number in range(num_classes)))
    section = section_of(report, found)
    texts = Checked(section).texts
    assert sum(map(len, section.parts)) < 1_000_000
    assert ("Curves of" in " ".join(texts)) is (num_classes == 2)
    assert {"class", "precision", "95% interval", "recall", "F1", "AP"} <= set(texts)
    shown = [row.name for row in found.classes if row.name in texts]
    if num_classes <= 50:
        assert shown == list(found.names)
    else:
        assert "The 50 of 1,000 classes with the lowest F1:" in texts
        worst = min(found.classes, key=lambda row: row.f1)
        assert worst.name in texts
        assert "confusion" not in section.numbers
    assert len(section.numbers["classes"]) == num_classes


@pytest.mark.parametrize("name", ["</script><img onerror=x>", "a" * 300, "two\nlines", "$x$", "مرحبا", "q\"'&"])
def test_any_name_of_a_class_is_text(report: ReportInput, name: str) -> None:
    texts = Checked(section_of(report, evaluation(60, (name, "plain")))).texts
    assert "plain" in texts


def test_bars_lie_within_0_and_1_and_do_not_depend_on_color(report: ReportInput) -> None:
    section = section_of(report, evaluation(50, ("a", "b", "c")))
    bars = [part for part in "".join(section.parts).split("<svg") if 'stroke="currentColor" aria-hidden' in part]
    assert len(bars) == 3
    assert all('stroke-width="6"' in bar for bar in bars)


def test_a_model_without_mistakes_has_no_most_frequent_ones(report: ReportInput) -> None:
    perfect = count_classes("made", Score(4, 4, 0.1), [0, 0, 1, 1], [0, 0, 1, 1], ("a", "b"))
    assert "None." in Checked(section_of(report, perfect)).texts


def test_a_run_without_held_out_images_has_no_section(report: ReportInput) -> None:
    assert classes_section(report) is None


def test_labels_have_their_scores_and_the_curves_of_the_most_frequent_ones(report: ReportInput) -> None:
    draws = np.random.default_rng(0)
    true = draws.random((60, 9)) < np.linspace(0.1, 0.6, 9)
    likely = np.clip(true * 0.3 + draws.random((60, 9)) * 0.7, 0, 1).astype(np.float32)
    names = tuple(f"<label {number}>" for number in range(9))
    section = section_of(report, score_each_label("made", likely, true, 0.5, names, [0.5] * 9))  # type: ignore[arg-type]
    texts = Checked(section).texts
    assert "ROC AUC" in texts
    assert sum(text.startswith("Curves of") for text in texts) == 6
    ids = re.findall(r' id="([^"]+)"', "".join(section.parts))
    assert len(ids) == len(set(ids)), "figures of one page must not share ids"


def test_classes_that_are_confused_become_neighbors() -> None:
    confusion = np.diag([50, 50, 50, 50, 50, 50])
    for one, other in ((0, 3), (1, 4), (2, 5)):
        confusion[one, other] = confusion[other, one] = 20
    order = class_order(confusion).tolist()
    assert sorted(order) == list(range(6))
    for one, other in ((0, 3), (1, 4), (2, 5)):
        assert abs(order.index(one) - order.index(other)) == 1


@pytest.mark.parametrize("confusion", [np.eye(4, dtype=int) * 3, np.zeros((3, 3), dtype=int), np.array([[5]])])
def test_order_of_classes_that_are_not_confused_is_kept(confusion: np.ndarray) -> None:
    assert class_order(confusion).tolist() == list(range(len(confusion)))
