"""list_images: what a user names -> image files."""

from pathlib import Path

import pytest

from vitreous.errors import DataNotFoundError
from vitreous.use.predict.inputs import list_images


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_gives_the_images_in_it_and_below_sorted(tmp_path: Path) -> None:
    images = [tmp_path / "b.PNG", tmp_path / "c" / "a.jpg", tmp_path / "z ü.webp"]
    _touch(*reversed(images), tmp_path / "notes.txt")
    assert list_images([tmp_path]) == images


def test_a_file_is_taken_whatever_it_is_called_and_in_the_order_given(tmp_path: Path) -> None:
    files = [tmp_path / "z", tmp_path / "a.txt"]
    _touch(*files)
    assert list_images(files) == files


def test_hidden_files_and_what_macos_leaves_behind_are_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path / "seen.png", tmp_path / ".hidden.png", tmp_path / ".cache" / "a.png")
    _touch(tmp_path / "__MACOSX" / "seen.png")
    assert list_images([tmp_path]) == [tmp_path / "seen.png"]


def test_a_folder_below_a_hidden_one_is_read_all_the_same(tmp_path: Path) -> None:
    _touch(tmp_path / ".own" / "pics" / "a.png")
    assert list_images([tmp_path / ".own" / "pics"]) == [tmp_path / ".own" / "pics" / "a.png"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _touch(tmp_path / "a.png")
    assert list_images([Path("~/a.png")]) == [tmp_path / "a.png"]


def test_nothing_gives_nothing() -> None:
    assert list_images([]) == []


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        list_images([tmp_path / "gone.png"])
    assert str(caught.value) == f"image={tmp_path / 'gone.png'}: no such file or folder; give images or folders of them"


def test_folder_without_images_is_named(tmp_path: Path) -> None:
    _touch(tmp_path / "empty" / "notes.txt")
    with pytest.raises(DataNotFoundError) as caught:
        list_images([tmp_path / "empty"])
    wanted = f"image={tmp_path / 'empty'}: a folder without images; give images or a folder of them"
    assert str(caught.value) == wanted
