import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.sources import FileSource, open_source
from vitreous.data.sources.folder import open_folder
from vitreous.errors import DataError, DataNotFoundError, DecodeError

MakeFolder = Callable[[Mapping[str, int]], Path]


def test_class_folders_become_sorted_classes_without_a_split(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"Äpfel": 2, "bird": 3, "a cat": 1}))
    assert source.name == "set"
    assert source.classes == ("a cat", "bird", "Äpfel")
    np.testing.assert_array_equal(source.labels, [0, 1, 1, 1, 2, 2])
    assert set(source.splits) == {""}
    assert source.describe(0).endswith("set/a cat/0.png")
    assert source.image(4).size == (12, 9)


def test_text_and_path_open_the_same(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    assert open_source(str(root)).classes == open_source(root).classes


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALIDATION", "testing"),
        ("training_set", "eval", "test_set"),
        ("train-images", "Dev", "hold out"),
        ("trn", "valid", "tst"),
    ],
)
def test_split_folders_are_respected_in_their_usual_spellings(
    make_folder: MakeFolder, train: str, val: str, test: str
) -> None:
    counts = {f"{train}/cat": 3, f"{train}/dog": 2, f"{val}/dog": 1, f"{test}/cat": 2, f"{test}/dog": 1}
    source = open_source(make_folder(counts))
    assert source.classes == ("cat", "dog")
    assert list(source.splits) == ["train"] * 5 + ["val"] + ["test"] * 3
    np.testing.assert_array_equal(source.labels, [0, 0, 0, 1, 1, 1, 0, 0, 1])


def test_train_alone_is_a_split_and_beside_others_a_class(make_folder: MakeFolder, tmp_path: Path) -> None:
    assert open_source(make_folder({"train/cat": 1, "train/dog": 1})).classes == ("cat", "dog")
    shutil.rmtree(tmp_path / "set")
    vehicles = open_source(make_folder({"train": 2, "bus": 1, "car": 1}))
    assert vehicles.classes == ("bus", "car", "train")
    assert set(vehicles.splits) == {""}


def test_nested_folders_belong_to_their_class(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"cat/2019/summer": 2, "cat": 1, "dog/a": 1}))
    np.testing.assert_array_equal(np.bincount(source.labels), [3, 1])


def test_hidden_system_and_other_files_are_passed_over(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 1, "__MACOSX/cat": 1, ".cache": 1, "cat/.thumbs": 1})
    (root / "LICENSE").write_text("free")
    for name in (".DS_Store", "Thumbs.db", "._0.png", "notes.txt"):
        (root / "cat" / name).write_text("x")
    source = open_source(root)
    assert source.classes == ("cat", "dog")
    np.testing.assert_array_equal(np.bincount(source.labels), [2, 1])
    assert source.notes == ()


def test_text_named_like_an_image_counts_and_is_unreadable(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    (root / "cat" / "1.JPG").write_text("no image")
    source = open_source(root)
    assert len(source) == 3
    with pytest.raises(DecodeError, match=r"1\.JPG: not an image that Pillow can read$"):
        source.image(1)
    with pytest.raises(DecodeError, match=r"1\.JPG: not an image that Pillow can read$"):
        source.header(1, source.content(1))


def test_empty_class_folder_and_loose_images_are_noted(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1, "empty": 0, ".": 2})
    source = open_source(root)
    assert source.classes == ("cat", "dog")
    assert source.notes == (
        f"{root / 'empty'}: holds no image file; left out",
        f"{root}: 2 images outside the class folders; left out",
    )


def test_links_in_a_circle_end_and_do_not_mix_classes(make_folder: MakeFolder) -> None:
    root = make_folder({"cat/inner": 2, "dog": 3})
    (root / "cat" / "inner" / "again").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    np.testing.assert_array_equal(np.bincount(open_source(root).labels), [2, 3])


def test_linked_class_folder_counts_and_a_dangling_link_is_unreadable(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 1})
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root / "cat", elsewhere)
    (root / "dog").symlink_to(elsewhere, target_is_directory=True)
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    source = open_source(root)
    assert list(source.labels) == [0, 1, 1]
    with pytest.raises(DecodeError, match=r"gone\.png: No such file or directory$"):
        source.content(2)


def test_differently_composed_umlauts_are_one_class(make_folder: MakeFolder) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD"))
    source = open_source(make_folder({f"train/{composed}": 1, "train/dog": 1, f"test/{decomposed}": 1}))
    assert source.classes == ("dog", composed)
    assert list(source.labels) == [1, 0, 1] or list(source.labels) == [0, 1, 1]


@pytest.mark.skipif(os.name == "nt", reason="Windows names are always text")
def test_names_that_are_no_text_can_be_read_and_printed(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    raw = os.fsencode(root / "cat") + b"/bad\xff.png"
    try:
        shutil.copy(os.fsencode(root / "cat" / "0.png"), raw)
    except OSError:
        pytest.skip("this file system takes text only")
    source = open_source(root)
    assert len(source) == 3
    assert source.describe(1).encode().endswith("bad\ufffd.png".encode())
    assert source.image(1).size == (12, 9)


def told(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_path_suggests_the_nearest_set_or_neighbour(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1})
    with pytest.raises(DataNotFoundError) as caught:
        open_source(root.parent / "sett")
    missing = root.parent / "sett"
    assert str(caught.value) == f"data.source={missing}: no such set and no such folder; did you mean {root}?"
    assert told("fashion_mnist") == (
        "data.source=fashion_mnist: no such set and no such folder; did you mean fashion-mnist?"
    )
    assert told("/qqq/zzz") == (
        "data.source=/qqq/zzz: no such set and no such folder; "
        "use one of cifar10, cifar100, digits, fashion-mnist, mnist, or the path of an existing folder"
    )


def test_file_is_refused(make_folder: MakeFolder) -> None:
    path = make_folder({"cat": 1}) / "cat" / "0.png"
    assert told(path) == (
        f"data.source={path}: ends in .png; a table ends in .csv, .tsv or .parquet, "
        "and images belong into a folder of class folders"
    )


@pytest.mark.parametrize("counts", [{}, {"cat": 0, "dog": 0}])
def test_folder_without_images_is_refused(make_folder: MakeFolder, counts: dict[str, int]) -> None:
    root = make_folder(counts)
    assert told(root) == f"data.source={root}: holds no image file; give a folder of class folders"


def test_images_without_class_folders_are_refused_with_their_number(make_folder: MakeFolder) -> None:
    root = make_folder({".": 4})
    assert told(root) == f"data.source={root}: 4 images but no class folders; give each class a folder of its own"


def test_one_class_is_refused_and_the_inner_folder_suggested(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 2})
    assert told(root) == (
        f"data.source={root}: only one class, 'cat'; a classifier needs two; add a folder for each other class"
    )
    shutil.rmtree(tmp_path / "set")
    root = make_folder({"unzipped/cat": 2, "unzipped/dog": 1})
    assert told(root) == (
        f"data.source={root}: only one class, 'unzipped'; a classifier needs two; did you mean {root / 'unzipped'}?"
    )


@pytest.mark.parametrize("split", ["test", "valid"])
def test_class_that_train_does_not_have_is_named(make_folder: MakeFolder, split: str) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, f"{split}/cat": 1, f"{split}/dogs": 1})
    expected = f"data.source={root / split / 'dogs'}: a class that train/ does not have; did you mean dog?"
    assert told(root) == expected


def test_split_spelled_twice_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "val/cat": 1, "validation/cat": 1})
    assert told(root) == f"data.source={root}: both val/ and validation/ hold val; keep one"


def test_held_out_parts_without_train_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"test/cat": 1, "val/cat": 1})
    assert told(root) == f"data.source={root}: test/ and val/ but no train/; add it"


def test_other_folder_beside_splits_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "test/cat": 1, "extra/cat": 1})
    assert told(root) == (
        f"data.source={root}: extra/ stands beside test/ and train/; move it elsewhere, or put all classes side by side"
    )


def test_folder_that_may_not_be_read_is_told(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"cat": 1, "dog": 1})

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError) as caught:
        open_folder(root)
    assert str(caught.value) == f"data.source={root}: could not be read (Permission denied); check it"


def test_file_that_vanishes_is_told(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    source = open_source(root)
    assert isinstance(source, FileSource)
    (root / "cat" / "0.png").unlink()
    with pytest.raises(DecodeError) as caught:
        source.encoded(0)
    assert str(caught.value) == f"{root / 'cat' / '0.png'}: No such file or directory"
