"""Paths that another machine wrote are found below one folder, or refused."""

import ntpath
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.data.sources.annotations.conftest import opened, shown, write_json
from tests.unit.data.sources.builders import error_of

from vitreous.data.sources import open_source
from vitreous.data.sources.annotations import places, read
from vitreous.data.sources.annotations.export import Entry
from vitreous.data.sources.annotations.places import find_files
from vitreous.errors import DataError

Put = Callable[[Iterable[str]], Path]


def coco(*paths: str) -> dict[str, object]:
    return {
        "images": [{"id": number, "file_name": path} for number, path in enumerate(paths)],
        "annotations": [{"image_id": number, "category_id": number % 2} for number in range(len(paths))],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }


OUTSIDE = [
    "/data/ann/photos/{}", "file:///data/ann/photos/{}", "s3://bucket/photos/{}", "https://host:80/photos/{}",
    "C:\\photos\\{}", "C:/photos/{}", "\\\\host\\share\\{}", "~/photos/{}", "gs://bucket/{}?version=1/2",
]  # fmt: skip


@pytest.mark.parametrize("form", OUTSIDE)
def test_absolute_paths_and_addresses_are_refused_unless_the_folder_of_the_images_is_given(put: Put, form: str) -> None:
    folder = put(["photos/a.png", "photos/b.png"])
    path = write_json(folder / "x.json", coco(form.format("a.png"), form.format("b.png")))
    message = error_of(lambda: open_source(path))
    assert message.startswith(f"data.source={path}: image={form.format('a.png')}: is an absolute path or an address; ")
    assert message.endswith("set data.root to it")
    source = opened(path, folder / "photos")
    assert shown(source) == [("a.png", "cat", ""), ("b.png", "dog", "")]


@pytest.mark.parametrize("path", ["../a.png", "x/../../a.png", "..\\a.png", "", ".", "x/..", "/.."])
@pytest.mark.parametrize("is_given", [False, True])
def test_no_path_leaves_the_folder_of_the_images(put: Put, path: str, is_given: bool) -> None:
    put(["a.png", "in/a.png"])
    root = put([]) / "in"
    with pytest.raises(DataError, match=r"image=.*: (is not a path inside|is an absolute path)"):
        find_files("x", root, root, [Entry(path, None)], is_given=is_given)


@pytest.fixture
def backslashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let paths be joined and normalized as on Windows, but files be found as here."""
    found = {name: getattr(os.path, name) for name in ("isfile", "relpath")}
    path = SimpleNamespace(**{name: getattr(ntpath, name) for name in ntpath.__all__ if name not in found}, **found)
    for module in (places, read):
        monkeypatch.setattr(module, "os", SimpleNamespace(path=path, access=os.access, listdir=os.listdir, R_OK=4))


@pytest.mark.usefixtures("backslashes")
def test_images_are_found_on_windows_too(put: Put) -> None:
    folder = put(["images/a.png", "images/in/b.png"])
    source = opened(write_json(folder / "x.json", coco("a.png", "in\\b.png")))
    assert shown(source) == [("images/a.png", "cat", ""), ("images/in/b.png", "dog", "")]
    assert source.notes == ()


@pytest.mark.usefixtures("backslashes")
@pytest.mark.parametrize("path", ["../a.png", "x\\..\\..\\a.png"])
def test_no_path_leaves_the_folder_of_the_images_on_windows(put: Put, path: str) -> None:
    root = put(["a.png", "in/b.png"]) / "in"
    with pytest.raises(DataError, match=r"image=.*: is not a path inside"):
        find_files("x", root, root, [Entry(path, None)], is_given=True)


@given(st.lists(st.text(st.sampled_from("./\\~:a\0 C"), max_size=12), min_size=1, max_size=3))
def test_whatever_is_found_is_inside(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> None:
    outer = tmp_path_factory.getbasetemp() / "outer"
    for folder in (outer, outer / "in", outer / "in" / "a"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "aa").write_bytes(b"")
    for is_given in (False, True):
        try:
            found, _ = find_files(
                "x", outer / "in", outer / "in", [Entry(path, None) for path in paths], is_given=is_given
            )
        except DataError:
            continue
        for path in filter(None, found):
            assert (outer / "in" / path).resolve().is_relative_to((outer / "in").resolve())


def test_backslashes_separate_folders(put: Put) -> None:
    source = opened(write_json(put(["in/a.png", "in/b.png"]) / "x.json", coco("in\\a.png", "in\\b.png")))
    assert [pair[0] for pair in shown(source)] == ["in/a.png", "in/b.png"]
    assert source.notes == ()


def test_folders_that_do_not_exist_here_are_left_out_with_a_note(put: Put) -> None:
    folder = put(["images/in/a.png", "images/b.png"])
    path = write_json(folder / "x.json", coco("old/photos/in/a.png", "old/photos/b.png"))
    source = opened(path)
    assert [pair[0] for pair in shown(source)] == ["images/b.png", "images/in/a.png"]
    assert source.notes[0] == (
        f"data.source={path}: images are read from {folder}/images, without the first 2 parts of their paths"
    )


def test_images_whose_names_would_become_equal_are_not_confused(put: Put) -> None:
    path = write_json(put(["a.png"]) / "x.json", coco("one/a.png", "two/a.png"))
    assert error_of(lambda: open_source(path)) == (
        f"data.source={path}: tried 2 images, and none is where the export says (the first is one/a.png); "
        f"put the images into {path.parent}, or set data.root to their folder"
    )


def test_uploaded_files_are_found_by_their_own_names(put: Put) -> None:
    tasks = [
        {"data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
         "annotations": [{"result": [{"from_name": "c", "type": "choices", "value": {"choices": [name]}}]}]}
        for name in ("a.png", "b.png")
    ]  # fmt: skip
    source = opened(write_json(put(["a.png", "b.png"]) / "x.json", tasks))
    assert [pair[:2] for pair in shown(source)] == [("a.png", "a.png"), ("b.png", "b.png")]
    assert source.notes[0].endswith("without folders and Label Studio's prefix of their paths")


def test_missing_images_are_counted(put: Put) -> None:
    path = write_json(put(["a.png", "b.png"]) / "x.json", coco("a.png", "b.png", "c.png", "x\0.png"))
    source = opened(path)
    assert len(source) == 2
    assert source.notes == (f"data.source={path}: left out 2 missing images (c.png, x\\x00.png)",)


def test_images_that_are_listed_twice_count_once_or_not_at_all(put: Put) -> None:
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", coco("a.png", "b.png", "a.png", "c.png", "c.png"))
    source = opened(path)
    assert shown(source) == [("a.png", "cat", ""), ("b.png", "dog", "")]
    assert source.notes == (
        f"data.source={path}: left out 1 image listed several times with different labels",
        f"data.source={path}: left out 1 repeated entry",
    )


def test_root_must_exist(put: Put) -> None:
    path = write_json(put(["a.png"]) / "x.json", coco("a.png"))
    assert error_of(lambda: open_source(path, path.parent / "no")) == (
        f"data.root={path.parent}/no: no such folder; use the folder with the images of the export"
    )


def test_archive_is_an_error_that_says_to_unpack_it(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(b"PK")
    assert error_of(lambda: open_source(path)) == f"data.source={path}: is an archive; unpack it, and give the folder"
