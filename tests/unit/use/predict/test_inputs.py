"""list_images: files and folders -> image files."""

from pathlib import Path

import pytest

from vitreous.errors import DataNotFoundError
from vitreous.use.predict.inputs import list_images


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_gives_its_images_and_those_of_its_subfolders_sorted(tmp_path: Path) -> None:
    images = [tmp_path / "b.PNG", tmp_path / "c" / "a.jpg", tmp_path / "z ü.webp"]
    _touch(*reversed(images), tmp_path / "notes.txt")
    assert list_images([tmp_path]) == images


def test_files_keep_their_order_whatever_their_names(tmp_path: Path) -> None:
    files = [tmp_path / "z", tmp_path / "a.txt"]
    _touch(*files)
    assert list_images(files) == files


def test_hidden_files_and_macos_leftovers_are_skipped(tmp_path: Path) -> None:
    _touch(tmp_path / "seen.png", tmp_path / ".hidden.png", tmp_path / ".cache" / "a.png")
    _touch(tmp_path / "__MACOSX" / "seen.png")
    assert list_images([tmp_path]) == [tmp_path / "seen.png"]


def test_folder_inside_a_hidden_folder_is_read(tmp_path: Path) -> None:
    _touch(tmp_path / ".own" / "pics" / "a.png")
    assert list_images([tmp_path / ".own" / "pics"]) == [tmp_path / ".own" / "pics" / "a.png"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _touch(tmp_path / "a.png")
    assert list_images([Path("~/a.png")]) == [tmp_path / "a.png"]


def test_no_paths_give_no_files() -> None:
    assert list_images([]) == []


def test_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        list_images([tmp_path / "gone.png"])
    assert str(caught.value) == f"image={tmp_path / 'gone.png'}: no such file or folder; give images or folders of them"


def test_folder_without_images_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path / "empty" / "notes.txt")
    with pytest.raises(DataNotFoundError) as caught:
        list_images([tmp_path / "empty"])
    wanted = f"image={tmp_path / 'empty'}: a folder without images; give images or a folder of them"
    assert str(caught.value) == wanted


def test_run_folders_are_skipped(tmp_path: Path) -> None:
    _touch(tmp_path / "seen.png", tmp_path / "runs" / "a" / "records.jsonl", tmp_path / "runs" / "a" / "example.png")
    assert list_images([tmp_path]) == [tmp_path / "seen.png"]
