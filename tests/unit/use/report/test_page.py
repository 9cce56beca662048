"""report.html: one well-formed, self-contained page."""

import base64
import csv
import hashlib
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.conftest import KEYS

import vitreous as vt
from vitreous.cli.main import COMMANDS
from vitreous.errors import DamagedFileError, NotARunError
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.html.markup import class_name
from vitreous.use.report import page as page_module
from vitreous.use.report.page import write_report
from vitreous.use.report.section import ReportInput, Section, SectionOf
from vitreous.use.run import Run

PICTURES = re.compile('<img src="data:image/jpeg[^>]*>')
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
    assert not [attrs for tag, attrs in page.tags if tag == "b" and attrs]


def test_page_contains_training_curves_and_confusion_matrix(page: Page) -> None:
    figures = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(figures) >= 7  # five curves, the matrix, the reliability curve
    assert {"loss", "accuracy", "learning rate", "gradient norm", "images/s", "predicted class"} <= set(page.texts)


def test_page_can_load_and_run_nothing_but_its_own_script(page: Page, html: str) -> None:
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name.endswith(("href", "src"))]
    assert all(
        value and value.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,")) for value in links
    )
    assert not re.search(r"url\(\s*[\"']?http|@import", html)
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"] == ["application/json", None]
    assert not any(name == "style" or name.startswith("on") for _, attrs in page.tags for name in attrs)
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_ids_are_unique_and_references_lead_to_them(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for name, value in attrs.items():
            named = re.findall(r"url\(#([^)]+)\)", value or "")
            named += [value[1:]] if name.endswith("href") and value and value.startswith("#") else []
            assert set(named) <= set(ids), (name, value)


def test_headings_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))


def test_sections_are_in_the_navigation(page: Page) -> None:
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections[0] == "verdict"
    assert [f"#{name}" for name in sections] == [
        attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"] != "#main"
    ]


def test_numbers_are_those_of_report_json(run: Run) -> None:
    stored = json.loads((run.path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert stored["sections"]["verdict"]["accuracy"] == run.accuracy
    assert stored["sections"]["data"]["train"] == 72 - sum(stored["sections"]["data"][k] for k in ("val", "test"))
    with (run.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = {f"{row['true']}/{Path(row['path']).name}": row for row in csv.DictReader(file)}
    wrong = stored["sections"]["mistakes"]["confident_and_wrong"]
    assert len(wrong) == sum(row["true"] != row["predicted"] for row in rows.values())
    for found in wrong:
        row = rows[found["name"]]  # relative to the data folder
        assert (found["true"], found["predicted"]) == (row["true"], row["predicted"])
        assert found["probabilities"][row["predicted"]] == pytest.approx(float(row["probability"]), abs=1e-5)
    confidences = [max(found["probabilities"].values()) for found in wrong]
    assert confidences == sorted(confidences, reverse=True)


def test_photos_can_be_left_out_and_are_not_added_by_an_update(own_run: Run) -> None:
    folder = RunFolder(own_run.path)

    def num_photos() -> int:
        return folder.report.read_text(encoding="utf-8").count('src="data:image/jpeg')

    assert num_photos() > 10
    write_report(folder, no_photos=True)
    assert num_photos() == 0
    assert "This page contains no photos: they were left out." in folder.report.read_text(encoding="utf-8")
    write_report(folder)  # as `vitreous explain` does
    assert num_photos() == 0
    write_report(folder, no_photos=False)
    assert num_photos() > 10


def test_page_says_how_many_pictures_it_contains(html: str) -> None:
    count = html.count('src="data:image/jpeg')
    assert f"This page contains {count} small pictures of the photos and their names" in html


def test_photos_of_other_images_are_not_shown(own_run: Run, photos: Path, tmp_path: Path) -> None:
    folder = RunFolder(own_run.path)
    moved = Path(shutil.copytree(photos, tmp_path / photos.name))
    config = folder.config.read_text(encoding="utf-8")
    folder.config.write_text(config.replace(str(photos), str(moved)), encoding="utf-8")
    write_report(folder)
    assert "This page contains no photos" not in folder.report.read_text(encoding="utf-8")
    (moved / "two words" / "a new one.png").write_bytes((moved / "two words" / "bild 0 ü.png").read_bytes())
    write_report(folder)
    html = folder.report.read_text(encoding="utf-8")
    assert f"This page contains no photos: {photos.name} has changed since the run." in html
    assert 'src="data:image/jpeg' not in html
    shutil.rmtree(moved)
    write_report(folder)
    assert "no such set and no such folder" in folder.report.read_text(encoding="utf-8")


def test_data_from_python_is_shown_if_the_caller_has_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    pairs = [(draw.integers(0, 256, (9, 7, 3), dtype=np.uint8), number % 3) for number in range(60)]
    config = {**KEYS, "data.val_ratio": 0.2, "train.epochs": 0.2}
    run = vt.train(pairs, out=tmp_path / "run", config=config)
    assert 'src="data:image/jpeg' in (run.path / "report.html").read_text(encoding="utf-8")
    write_report(RunFolder(run.path))
    html = (run.path / "report.html").read_text(encoding="utf-8")
    assert "This page contains no photos: data.source=python:" in html


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_page_that_would_be_too_large_drops_the_last_pictures_of_the_largest_sections(
    share: float, own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = RunFolder(own_run.path), list[SectionOf]()

    def counted(make: SectionOf, report: ReportInput) -> Section | None:
        made.append(make)
        return make(report)

    write_report(folder, no_photos=True)
    without = folder.report.stat().st_size
    write_report(folder, no_photos=False)
    whole = folder.report.read_text(encoding="utf-8")
    most = without + int(share * (folder.report.stat().st_size - without))
    monkeypatch.setattr(page_module, "MOST_BYTES", most)
    monkeypatch.setattr(page_module, "SECTIONS", tuple(partial(counted, make) for make in page_module.SECTIONS))
    write_report(folder)
    html = folder.report.read_text(encoding="utf-8")
    assert len(made) == len(set(made)) == len(page_module.SECTIONS)  # each section was made once
    before, after = (PICTURES.findall(text) for text in (whole, html))
    assert len(html.encode()) <= most < len(whole.encode())
    assert 0 < len(after) < len(before)
    dropped = len(before) - len(after)
    assert f"Left out to keep the page below {most / 1e6:g} MB: {dropped} picture" in html
    assert PICTURES.sub("", html).count("<figcaption>") == PICTURES.sub("", whole).count("<figcaption>")
    sizes = [sum(map(len, PICTURES.findall(part))) for part in html.split("<section ")]
    largest = [sum(map(len, PICTURES.findall(part))) for part in whole.split("<section ")]
    cut = [size for size, old in zip(sizes, largest, strict=True) if size < old]
    assert max(cut) >= max(sizes) - max(map(len, before))  # no section that was cut is much smaller than another one


@pytest.mark.parametrize("budget_s", [0.0, 60.0])
def test_only_the_end_of_a_training_with_a_budget_measures_less(
    budget_s: float, own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(own_run.path)
    folder.config.write_text(
        folder.config.read_text("utf-8").replace("budget_s: 0.0", f"budget_s: {budget_s}"),
        encoding="utf-8",
    )
    assert read_config(folder.config).train.budget_s == budget_s
    monkeypatch.setattr(page_module, "_MEASURED_S", 0.0)

    def compared() -> int:
        found = json.loads(folder.agreement.read_text("utf-8"))["agreement"]
        return int(found["num_images"] + found["num_generated"])

    folder.agreement.unlink()
    write_report(folder, ends_training=True)
    assert compared() == (own_run.metrics["test"]["num_images"] if budget_s else 1_000)  # one batch, or all
    write_report(folder)
    assert compared() == 1_000


def test_a_run_without_stored_outputs_still_has_a_report(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    folder.outputs.unlink()
    write_report(folder)
    page = Page(folder.report.read_text(encoding="utf-8"))
    assert {"In short", "Mistakes", "Training", "Data"} <= set(page.texts)
    assert any("the run has no record of its held-out images" in text for text in page.texts)
    assert "reliability" not in folder.report.read_text(encoding="utf-8")


def test_commands_of_the_advice_are_commands(run: Run) -> None:
    stored = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    advice = stored["sections"]["verdict"]["advice"]
    assert 1 <= len(advice) <= 3
    assert len({each["command"] or each["text"] for each in advice}) == len(advice)
    assert [each["gain"] for each in advice] == sorted((each["gain"] for each in advice), reverse=True)
    for each in advice:
        assert shlex.split(each["command"])[:1] == ["vitreous"]
        assert shlex.split(each["command"])[1] in COMMANDS


def test_page_shows_each_setting_with_its_reason(run: Run, page: Page) -> None:
    for line in (run.path / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "plan":
            for choice in record["choices"]:
                assert choice["key"] in page.texts
                assert choice["reason"] in page.texts


def test_page_shows_the_number_of_images_per_class(run: Run, page: Page) -> None:
    start = max(number for number, text in enumerate(page.texts) if text == "Scores per class")
    first = page.texts.index('<b>&"', start)
    shown = page.texts[first + 7]
    found = run.evaluate()
    assert int(shown) == found.classes[0].num_images


def test_page_of_a_run_without_held_out_images_has_no_accuracy(blind_run: Run) -> None:
    page = Page((blind_run.path / "report.html").read_text(encoding="utf-8"))
    assert "The run has no test or validation images, so its accuracy is unknown." in page.texts
    assert not any("validation loss" in text and text.startswith("recipe") for text in page.texts)
    assert [attrs.get("role") for tag, attrs in page.tags if tag == "svg"].count("img") == 5
    assert any("Nothing is known about new images" in text for text in page.texts)


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
    assert "dark/<i>.png" in page.texts
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
    scores = re.compile('<section id="classes".*?</section>', re.DOTALL)
    assert scores.findall(old) == scores.findall(new) != []


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
    rows = list(csv.reader(predictions.read_text(encoding="utf-8").splitlines()))[1:]
    old = ["path,true,predicted,probability", *(f"{row[0]},{row[1]},two words,0.5" for row in rows)]
    predictions.write_text("\n".join(old), encoding="utf-8")
    write_report(RunFolder(own_run.path))
    texts = Page((own_run.path / "report.html").read_text(encoding="utf-8")).texts
    assert any(text.startswith("2 classes are never predicted: ") and "Äpfel" in text for text in texts)
    assert "–" in texts  # the precision of a class that is never predicted
    assert class_name("a" * 50 + "b") == f'<bdi title="{"a" * 50}b">{"a" * 26}…{"a" * 12}b</bdi>'
    assert class_name("a < b") == "<bdi>a &lt; b</bdi>"


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
