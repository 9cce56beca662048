"""The section about shortcuts: the stored sentences and picture, or what to do; nothing of a hostile name as HTML."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.use.report.test_page import Page
from tests.unit.use.report.thumbnails import NO_THUMBNAILS

from vitreous.errors import DamagedFileError
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.explain.shortcut_check import check_shortcuts, write_shortcuts
from vitreous.use.report.photos import Pictures
from vitreous.use.report.section import ReportInput, Section
from vitreous.use.report.sections.shortcuts import shortcuts_section
from vitreous.use.run import Run


def section_of(run: Run, pictures: Pictures | None = NO_THUMBNAILS) -> Section:
    config = read_config(run.path / "config.yaml")
    return shortcuts_section(ReportInput(RunFolder(run.path), config, {}, [], None, {}, pictures))


def test_without_a_check_the_section_advises_one(own_run: Run) -> None:
    section = section_of(own_run)
    (advice,) = section.advice
    assert advice.command == f"vitreous explain {own_run.path}"
    assert section.numbers == {}
    Page("".join(section.parts))


def test_after_a_check_it_shows_sentences_and_picture(own_run: Run) -> None:
    check = check_shortcuts(own_run.path)
    write_shortcuts(RunFolder(own_run.path), check)
    section = section_of(own_run)
    page = Page("".join(section.parts))
    assert [text for text in page.texts if text in check.sentences] == list(check.sentences)
    (source,) = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert str(source).startswith("data:image/jpeg;base64,/9j/")
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert section.numbers == json.loads(json.dumps(check.as_dict()))
    assert section.advice == ()


def test_photos_that_must_not_be_shown_are_left_out(own_run: Run) -> None:
    write_shortcuts(RunFolder(own_run.path), check_shortcuts(own_run.path))
    assert "img" not in {tag for tag, _ in Page("".join(section_of(own_run, None).parts)).tags}


def test_names_are_text_and_a_damaged_file_is_named(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    hostile = "class </script><img src=x onerror=alert(1)>: 50% of the relevance"
    folder.shortcuts.write_text(json.dumps({"sentences": [hostile]}), encoding="utf-8")
    page = Page("".join(section_of(own_run).parts))
    assert hostile in page.texts
    assert {tag for tag, _ in page.tags} == {"ul", "li"}
    for content in ("", "[]", '{"found": []}', '{"sentences": 5}'):
        folder.shortcuts.write_text(content, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=r"shortcuts\.json.*remove the file, or check for shortcuts again"):
            section_of(own_run)


def test_the_picture_is_next_to_the_json(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    write_shortcuts(folder, check_shortcuts(own_run.path))
    assert folder.shortcuts_picture == Path(folder.shortcuts).with_suffix(".jpg")
    with Image.open(folder.shortcuts_picture) as picture:
        assert picture.width > 500
