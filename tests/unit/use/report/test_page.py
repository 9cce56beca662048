"""report.html: one well-formed, self-contained page."""

import json
import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import DamagedFileError, NotARunError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.report.markup import class_name
from vitreous.use.report.page import write_report
from vitreous.use.run import Run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """HTML parser that collects texts and tags, and fails if a tag is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_page_shows_accuracy_and_number_of_images(run: Run, page: Page) -> None:
    stored = run.metrics["test"]
    assert f"{100 * stored['accuracy']:.1f}%" in page.texts
    low, high = stored["interval_95"]
    assert any(
        f"accuracy on the test images of my photos: {stored['num_correct']} of {stored['num_images']} images "
        f"correct; 95% interval {100 * low:.1f}% to {100 * high:.1f}%." in text
        for text in page.texts
    )


def test_class_names_are_escaped(page: Page, html: str) -> None:
    assert escape('<b>&"') in html
    assert '<b>&"' in page.texts
    assert "b" not in {tag for tag, _ in page.tags}


def test_page_contains_training_curves_and_confusion_matrix(page: Page) -> None:
    assert [tag for tag, _ in page.tags].count("svg") == 2
    assert {"loss", "accuracy", "predicted class"} <= set(page.texts)


def test_page_is_self_contained(page: Page, html: str) -> None:
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name.endswith(("href", "src"))]
    assert all(value and value.startswith(("#", "data:")) for value in links)
    assert not re.search(r"url\(\s*[\"']?http|@import", html)


def test_page_shows_each_setting_with_its_reason(run: Run, page: Page) -> None:
    for line in (run.path / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "plan":
            for choice in record["choices"]:
                assert choice["key"] in page.texts
                assert choice["reason"] in page.texts


def test_page_shows_the_number_of_images_per_class(run: Run, page: Page) -> None:
    first = page.texts.index('<b>&"')
    shown = page.texts[first + 7]
    found = run.evaluate()
    assert int(shown) == found.classes[0].num_images


def test_page_of_a_run_without_held_out_images_has_no_accuracy(blind_run: Run) -> None:
    page = Page((blind_run.path / "report.html").read_text(encoding="utf-8"))
    assert "The run has no test or validation images, so its accuracy is unknown." in page.texts
    assert not any("validation loss" in text and text.startswith("recipe") for text in page.texts)
    assert [tag for tag, _ in page.tags].count("svg") == 1


def test_unreadable_files_are_listed_and_escaped(run_on: Callable[..., Run], tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for name, low in (("dark", 0), ("light", 150)):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(low, low + 90, (9, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{number}.png")
    (tmp_path / "pics" / "dark" / "<i>.png").write_bytes(b"no image")
    found = run_on(tmp_path / "pics", **{"train.epochs": 0.2})
    page = Page((found.path / "report.html").read_text(encoding="utf-8"))
    assert "1 unreadable file skipped" in page.texts
    assert str(tmp_path / "pics" / "dark" / "<i>.png") in page.texts
    assert "i" not in {tag for tag, _ in page.tags}


def test_rejected_steps_are_counted(own_run: Run) -> None:
    refused = {"kind": "refused", "step": 3, "attempt": 1, "loss": "nan", "grad_norm": "nan", "cause": "the loss"}
    with (own_run.path / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(refused) + "\n")
    write_report(RunFolder(own_run.path))
    page = Page((own_run.path / "report.html").read_text(encoding="utf-8"))
    assert "1 step rejected because the loss was not finite" in page.texts


def test_commands_quote_a_folder_with_a_space(run: Run, html: str) -> None:
    assert f"vitreous predict &#x27;{run.path}&#x27; IMAGE" in html


def test_page_of_the_working_directory_has_its_name(own_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_run.path)
    write_report(RunFolder(Path()))
    assert "<h1>own</h1>" in (own_run.path / "report.html").read_text(encoding="utf-8")


def test_unfinished_run_has_no_report(unfinished: Path) -> None:
    (unfinished / "report.html").unlink()
    with pytest.raises(NotARunError, match="no such file"):
        write_report(RunFolder(unfinished))
    assert not (unfinished / "report.html").exists()


def test_report_of_an_old_run_reads_its_columns(own_run: Run) -> None:
    predictions = own_run.path / "predictions.csv"
    RunFolder(own_run.path).outputs.unlink()
    write_report(RunFolder(own_run.path))
    new = (own_run.path / "report.html").read_text(encoding="utf-8")
    _, _, rows = predictions.read_text(encoding="utf-8").partition("\n")
    predictions.write_text("image,label,called,probability\n" + rows, encoding="utf-8")
    write_report(RunFolder(own_run.path))
    old = (own_run.path / "report.html").read_text(encoding="utf-8")
    assert (
        old.partition("<h2>Scores per class")[2].partition("<h2>Settings")[0]
        == (new.partition("<h2>Scores per class")[2].partition("<h2>Settings")[0])
    )
    assert "<h2>Scores per class" in old


def test_page_shows_the_baseline_of_the_accuracy(run: Run, page: Page) -> None:
    stored = run.metrics["test"]
    assert any(
        f"always predicting '{stored['majority_class']}'" in text
        and f"balanced accuracy (mean recall of the classes) {stored['balanced_accuracy']:.1%}" in text
        for text in page.texts
    )


def test_classes_that_are_never_predicted_are_named_and_long_names_shortened(own_run: Run) -> None:
    predictions = own_run.path / "predictions.csv"
    RunFolder(own_run.path).outputs.unlink()
    head, *lines = predictions.read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit(",", 3) for line in lines]
    predictions.write_text("\n".join([head, *(f"{row[0]},{row[1]},two words,0.5" for row in rows)]), encoding="utf-8")
    write_report(RunFolder(own_run.path))
    texts = Page((own_run.path / "report.html").read_text(encoding="utf-8")).texts
    assert any(text.startswith("2 classes are never predicted: ") and "Äpfel" in text for text in texts)
    assert "–" in texts  # the precision of a class that is never predicted
    assert class_name("a" * 50 + "b") == f'<span title="{"a" * 50}b">{"a" * 26}…{"a" * 12}b</span>'
    assert class_name("a < b") == "a &lt; b"


def test_report_refuses_predictions_that_were_cut_short_and_altered_records(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    folder.outputs.unlink()
    written, records = folder.predictions.read_bytes(), folder.records.read_bytes()
    num_rows = written.count(b"\n") - 1
    folder.predictions.write_bytes(written[: written.rindex(b"\n", 0, -1) + 1])
    rule = f"has {num_rows - 1} rows, but the run tested {num_rows} images; train again"
    with pytest.raises(DamagedFileError, match=f"predictions.csv: {rule}$"):
        write_report(folder)
    for damaged in (b"", written.replace(b"\xc3", b"\xff"), written.replace(b"predicted", b"precited")):
        folder.predictions.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"predictions.csv: .*; restore the file, or train again$"):
            write_report(folder)
    folder.predictions.write_bytes(written)
    folder.records.write_bytes(records.replace(b'"notes": [', b'"notes": 3, "others": ['))
    with pytest.raises(
        DamagedFileError, match=r"records.jsonl: cannot be read as .*; restore the file, or train again$"
    ):
        write_report(folder)
    folder.records.write_bytes(records)
    write_report(folder)
