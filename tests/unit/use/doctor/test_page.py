"""write_page: one self-contained file with pictures; names are escaped."""

import base64
import io
import re
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import SaveError
from vitreous.training.folder.records import ignore
from vitreous.use.doctor.examiner import DataReport, examine_data
from vitreous.use.doctor.page import MOST_GROUPS, check_page_path, write_page

HOSTILE = "<script>alert('é')</script>&\"x"


def _noise(seed: int, height: int = 20, width: int = 30) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 images, one with a hostile name; one image has a copy and one file is unreadable."""
    root = tmp_path_factory.mktemp("data") / "set"
    for number, name in enumerate(("plain", HOSTILE.replace("/", "∕"))):
        (root / name).mkdir(parents=True)
        for seed in range(12):
            _noise(100 * number + seed).save(root / name / f"{seed}.png")
    _noise(3).save(root / "plain" / "'><img src=x onerror=alert(1)>.bmp")
    (root / "plain" / "<b>broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def report(hostile: Path) -> DataReport:
    return examine_data(str(hostile), ignore)


@pytest.fixture(scope="module")
def page(report: DataReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "doctor.html"
    write_page(path, report)
    return path.read_text(encoding="utf-8")


def _pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_page_loads_nothing_from_outside(page: str) -> None:
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]{5})""", page.replace("&lt;img src=x", ""))
    assert set(sources) == {"data:", "#main"}


def test_names_are_escaped(page: str) -> None:
    assert page.count("<script") == 1  # that of all pages
    assert "<img src=x" not in page
    assert "<b>broken" not in page
    assert "&lt;script&gt;alert(" in page
    assert "&#x27;&gt;&lt;img src=x onerror=alert(1)&gt;.bmp" in page
    assert page.count("<b>") == page.count("</b>")


def test_copies_are_shown_side_by_side(page: str) -> None:
    section = next(
        part for part in page.split("<h2>") if "near-duplicate of" in part or "a copy of a training image" in part
    )
    one, other = _pictures(section)
    difference = np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float))
    assert difference.mean() < 2
    assert one.size == (112, 75)


def test_unreadable_file_is_listed_without_a_picture(page: str) -> None:
    section = next(part for part in page.split("<h2>") if "cannot be decoded" in part)
    assert "&lt;b&gt;broken.png" in section
    assert _pictures(section) == []


def test_each_class_has_a_contact_sheet(page: str, report: DataReport) -> None:
    sheets = [part for part in page.split("<h2>") if 'class="photos small"' in part]
    assert len(sheets) == len(report.survey.source.classes) == 2
    for part in sheets:
        pictures = _pictures(part)
        assert 12 <= len(pictures) <= 13
        assert {picture.size for picture in pictures} == {(72, 48)}
        assert all(np.asarray(picture.convert("L"), dtype=float).std() > 5 for picture in pictures)  # not blank


def test_page_has_histograms(page: str) -> None:
    assert page.count('<svg class="bar"') >= 4
    assert "PNG RGB" in page
    assert "BMP RGB" in page


def test_only_the_first_samples_of_a_finding_are_shown(hostile: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for seed in range(20):
            Image.new("RGB", (8, 8), (seed, 0, 0)).save(root / name / f"{name}{seed}.png")
    write_page(tmp_path / "x.html", examine_data(str(root), ignore))
    html = (tmp_path / "x.html").read_text(encoding="utf-8")
    section = next(part for part in html.split("<h2>") if "are blank" in part)
    assert len(_pictures(section)) == MOST_GROUPS
    assert f"The first {MOST_GROUPS} of 40 are shown" in section


def test_page_that_cannot_be_written_leaves_no_file(report: DataReport, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(SaveError, match="could not be written"):
            write_page(tmp_path / "x.html", report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_folder_is_rejected_as_page(tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(ValueError, match=r"x\.html: is a folder; name a file, e\.g\. .*x\.html.doctor\.html$"):
        check_page_path(tmp_path / "x.html")
