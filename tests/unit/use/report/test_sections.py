"""Sections of the report for any class names, any number of classes and images, and both kinds of labels."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.use.report.test_page import Page

from vitreous import atomic
from vitreous.errors import DamagedFileError
from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import score
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import count_classes
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.report import page as page_module
from vitreous.use.report.page import SECTIONS, write_report
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.use.report.sections.calibration import calibration_section
from vitreous.use.report.sections.looks import looks_section
from vitreous.use.report.sections.mistakes import mistakes_section
from vitreous.use.report.sections.verdict import verdict_section
from vitreous.use.run import Run

NAMES = [
    "</script><img src=x onerror=alert(1)>", "</style><svg onload=alert(2)>", "]]><!--", "--><script>alert(3)</script>",
    "\"' onmouseover='alert(4)", "&lt;b&gt;", "$x_1$ \\frac{", "a\nb\tc", "مرحبا بالعالم", "\u202eevil\u2066",
    "\x01\x02",
    "猫" * 150, "x" * 300, "a  b", "", "%s {} {0}", "`code` *bold* |", "🙂‍↔️", "ﷺ", "C:\\temp\\x",
]  # fmt: skip
"""Names that break pages whose author has not thought of them."""

Make = Callable[..., ReportInput]


@pytest.fixture
def make(run: Run) -> Make:
    """Make the input of a report from class names and numbers of images, with random outputs."""

    def made(
        classes: Sequence[str], num_images: int = 60, *, seed: int = 0, names: Sequence[str] | None = None
    ) -> ReportInput:
        generator = torch.Generator().manual_seed(seed)
        true = torch.randint(len(classes), (num_images,), generator=generator)
        logits = torch.randn(num_images, len(classes), generator=generator)
        logits[torch.arange(num_images), true] += 1.5
        outputs = Outputs("the test images", tuple(classes), logits, true, indices=np.arange(num_images))
        found = count_classes("the test images", score(logits, true, classes), true, logits.argmax(1), tuple(classes))
        folder = RunFolder(run.path)
        records = [dict(record) for record in read_records(folder.records)]
        for record in records:
            if record["kind"] == "data":
                record |= {"classes": list(classes), "class_counts": [3] * len(classes), "findings": [classes[0]]}
                record["skipped"] = [[f"{name}.png", name] for name in classes[:5]]
        metadata = {**run.metadata, "classes": list(classes)}
        report = ReportInput(folder, read_config(folder.config), metadata, records, found, {"test": outputs})
        report.__dict__["names"] = list(names or [f"{number}.png" for number in range(num_images)])
        return report

    return made


def html_of(report: ReportInput) -> tuple[str, list[Section]]:
    sections = [section for make in SECTIONS if (section := make(report)) is not None]
    sections = [verdict_section(report, sections), *sections]
    return page_module._page(report, sections), sections


def test_any_names_of_classes_and_images_leave_the_page_whole(make: Make) -> None:
    html, sections = html_of(make(NAMES, 200, names=[NAMES[number % len(NAMES)] for number in range(200)]))
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert "img" not in tags
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"] == ["application/json", None]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe]", html)
    plain = json.dumps(atomic.plain({section.name: section.numbers for section in sections}), allow_nan=False)
    found = json.loads(plain)["mistakes"]
    assert {row["true"] for row in found["least_certain"]} <= set(NAMES)


def test_a_thousand_classes_stay_small_and_quick(make: Make) -> None:
    began_s = time.process_time()
    html, _ = html_of(make([f"{'a long name ' * 25}{number}" for number in range(1_000)], 3_000))
    assert len(html) < 3_000_000
    assert time.process_time() - began_s < 30
    Page(html)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_few_images_or_a_class_that_is_never_right_are_no_problem(make: Make, num_classes: int) -> None:
    for num_images in (1, 2, 5):
        report = make([f"class {number}" for number in range(num_classes)], num_images, seed=num_images)
        Page(html_of(report)[0])


def test_mistakes_are_those_of_the_outputs(make: Make) -> None:
    report = make(["a", "b", "c"], 300)
    outputs = report.outputs["test"]
    section = mistakes_section(report)
    assert section is not None
    wrong = np.flatnonzero(outputs.predicted != outputs.numbers)
    by_confidence = wrong[np.argsort(-outputs.probabilities.max(axis=1)[wrong], kind="stable")]
    assert [row["name"] for row in section.numbers["confident_and_wrong"]] == [f"{n}.png" for n in by_confidence[:12]]
    uncertain = np.argsort(outputs.probabilities.max(axis=1), kind="stable")[:12]
    assert [row["name"] for row in section.numbers["least_certain"]] == [f"{n}.png" for n in uncertain]
    pairs = {(row["true"], row["predicted"]) for row in section.numbers["most_frequent_mistakes"]}
    assert pairs == {(true, predicted) for true, predicted, *_ in report.evaluation.confused_most(6)}  # type: ignore
    assert f"{len(wrong)} mistakes among 300 images" in section.parts[0]
    for true, predicted, count, *_ in report.evaluation.confused_most(1):  # type: ignore[union-attr]
        assert section.numbers["sentence"] == f"most frequent mistake: {true} predicted as {predicted} ({count} images)"


def test_mistakes_with_several_labels_are_ordered_by_the_worst_decision(make: Make) -> None:
    report = make(["a", "b", "c"], 4)
    logits = torch.tensor([[3.0, -3, -3], [2, -2, -2], [-1, -4, 5], [1, 1, 1]])
    true = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]])
    outputs = Outputs("some", ("a", "b", "c"), logits, true, thresholds=(0.5, 0.5, 0.5), indices=np.arange(4))
    report.outputs["test"] = outputs  # type: ignore[index]
    section = mistakes_section(report)
    assert section is not None
    rows = section.numbers["confident_and_wrong"]
    assert [row["name"] for row in rows] == ["1.png", "2.png"]
    assert [(row["true"], row["predicted"]) for row in rows] == [("", "a"), ("a;c", "c")]
    assert calibration_section(report) is None


def test_a_model_without_mistakes_says_so(make: Make) -> None:
    report = make(["a", "b"], 30)
    outputs = report.outputs["test"]
    outputs.logits[torch.arange(30), outputs.true] += 50
    found = count_classes("x", score(outputs.logits, outputs.true), outputs.true, outputs.predicted, ("a", "b"))
    report = ReportInput(report.folder, report.config, report.metadata, report.records, found, report.outputs)
    report.__dict__["names"] = [""] * 30
    section = mistakes_section(report)
    assert section is not None
    assert "0 mistakes among 30 images" in section.parts[0]
    assert section.advice == ()


def test_calibration_of_many_images_is_judged_by_a_sample(make: Make) -> None:
    section = calibration_section(make(["a", "b"], 8_000))
    assert section is not None
    assert section.numbers["num_images"] == 3_000
    assert "Of 8,000 images, 3,000 were drawn at random for this." in section.parts[0]


def test_the_first_screen_gives_the_most_useful_advice_of_all_sections(make: Make) -> None:
    report = make(["a", "b"], 5_000)
    others = [
        Section("x", "X", (), {}, (Advice("third", "", 0.1), Advice("<i>first", "vitreous report 'a b'", 0.3))),
        Section("y", "Y", (), {}, (Advice("second", "", 0.2), Advice("fourth", "", 0.05), Advice("third", "", 0.1))),
    ]
    section = verdict_section(report, others)
    texts = re.findall(r"<li>([^<]*)<br>", section.parts[-1])
    assert texts == ["&lt;i&gt;first", "second", "third"]
    assert '<pre class="command" tabindex="0"><code>vitreous report &#x27;a b&#x27;</code></pre>' in section.parts[-1]


def test_looks_show_the_last_check_of_explanations(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    score = {"mean": 0.25, "low": 0.125, "high": 0.375}
    content = {"sentences": ["<b> is the best"], "methods": {
        "x": {"label": "method <x>", "measured": {"removal": {"score": score}}}}}  # fmt: skip
    (folder.path / "faithfulness.json").write_text(json.dumps(content), encoding="utf-8")
    write_report(folder)
    texts = Page(folder.report.read_text(encoding="utf-8")).texts
    assert {"<b> is the best", "method <x>", "0.25"} <= set(texts)
    assert "0.12 to 0.38" in texts
    (folder.path / "faithfulness.json").write_text('{"sentences": 5}', encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"faithfulness\.json: .*; delete it, or check explanations again$"):
        write_report(folder)


def test_typical_images_are_the_most_central_correct_ones(run: Run) -> None:
    section = looks_section(_input(run))
    html = "".join(section.parts)
    assert html.count('<li class="pair"') == 3
    assert html.count('src="data:image/jpeg') == 6
    assert 'alt="typical image of Äpfel"' in html
    assert {each.command.split()[-1] for each in section.advice} >= {"--check", "--model"}


def _input(run: Run) -> ReportInput:
    return page_module._read(RunFolder(run.path), None, no_photos=False, ends_training=False)


@pytest.mark.slow
def test_a_million_predictions_take_a_bounded_time(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    classes, generator = own_run.classes, np.random.default_rng(0)
    numbers = generator.integers(3, size=(1_000_000, 2))
    rows = ["path,true,predicted,probability"]
    rows += [f"{n}.png,{csv_cell(classes[a])},{csv_cell(classes[b])},0.5" for n, (a, b) in enumerate(numbers.tolist())]
    folder.predictions.write_text("\n".join(rows) + "\n", encoding="utf-8")
    folder.outputs.unlink()
    metrics = own_run.metadata["metrics"]["test"] | {"num_images": 1_000_000}
    metrics["num_correct"] = int((numbers[:, 0] == numbers[:, 1]).sum())
    change_metrics(folder.model, metrics)
    began_s = time.process_time()
    write_report(folder)
    assert time.process_time() - began_s < 60
    assert folder.report.stat().st_size < 1_000_000


def csv_cell(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def change_metrics(model: Path, test: dict[str, Any]) -> None:
    """Replace the stored scores on the test images."""
    from vitreous.model.weights import load_model, read_metadata, save_model

    metadata = read_metadata(model)
    metadata["metrics"]["test"] = test
    del metadata["format"], metadata["architecture"]
    save_model(model, load_model(model), metadata)
