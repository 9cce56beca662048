import errno
import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from tests.unit.data.sources.builders import error_of

from vitreous.data.label_cells import Task
from vitreous.data.sources import FileSource, folder, open_source
from vitreous.data.sources.folder import open_folder
from vitreous.errors import DataNotFoundError, DecodeError

MakeFolder = Callable[[Mapping[str, int]], Path]


def test_class_folders_become_sorted_classes_without_a_split(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"Äpfel": 2, "bird": 3, "a cat": 1}))
    assert source.name == "set"
    assert source.classes == ("a cat", "bird", "Äpfel")
    np.testing.assert_array_equal(source.labels, [0, 1, 1, 1, 2, 2])
    assert set(source.splits) == {""}
    assert source.describe(0).endswith("set/a cat/0.png")
    assert source.image(4).size == (12, 9)


def test_folder_is_opened_by_text_or_path(make_folder: MakeFolder) -> None:
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
def test_split_folders_are_recognized_in_common_spellings(
    make_folder: MakeFolder, train: str, val: str, test: str
) -> None:
    counts = {f"{train}/cat": 3, f"{train}/dog": 2, f"{val}/dog": 1, f"{test}/cat": 2, f"{test}/dog": 1}
    source = open_source(make_folder(counts))
    assert source.classes == ("cat", "dog")
    assert list(source.splits) == ["train"] * 5 + ["val"] + ["test"] * 3
    np.testing.assert_array_equal(source.labels, [0, 0, 0, 1, 1, 1, 0, 0, 1])


def test_train_is_a_split_if_it_is_the_only_folder_and_a_class_next_to_other_folders(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    assert open_source(make_folder({"train/cat": 1, "train/dog": 1})).classes == ("cat", "dog")
    shutil.rmtree(tmp_path / "set")
    vehicles = open_source(make_folder({"train": 2, "bus": 1, "car": 1}))
    assert vehicles.classes == ("bus", "car", "train")
    assert set(vehicles.splits) == {""}


def test_nested_folders_belong_to_their_class(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"cat/2019/summer": 2, "cat": 1, "dog/a": 1}))
    np.testing.assert_array_equal(np.bincount(source.labels), [3, 1])


class OnWindows(PureWindowsPath):
    """A path on Windows, which needs no such system."""

    def resolve(self) -> "OnWindows":
        return self


def test_images_have_the_same_names_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    root = OnWindows(r"C:\photos")
    monkeypatch.setattr(folder, "_split_folders", lambda root: {})
    monkeypatch.setattr(folder, "images_below", lambda root: [root / "cat" / "a.png", root / "b.png"])
    source = folder.open_unlabeled(root)  # type: ignore[arg-type]
    assert [source.key(number) for number in range(2)] == ["b.png", "cat/a.png"]


def test_hidden_system_and_other_files_are_ignored(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 1, "__MACOSX/cat": 1, ".cache": 1, "cat/.thumbs": 1,
                        "System Volume Information": 1, "cat/@eaDir/0.png": 2, "#recycle": 1})  # fmt: skip
    (root / "LICENSE").write_text("free")
    for name in (".DS_Store", "Thumbs.db", "._0.png", "notes.txt"):
        (root / "cat" / name).write_text("x")
    source = open_source(root)
    assert source.classes == ("cat", "dog")
    np.testing.assert_array_equal(np.bincount(source.labels), [2, 1])
    assert source.notes == ()


def test_text_file_with_an_image_suffix_counts_and_is_unreadable(make_folder: MakeFolder) -> None:
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
        f"{root / 'empty'}: ignored, because it holds no image file",
        f"{root}: ignored 2 images outside the class folders",
    )


@pytest.mark.parametrize("task", ["auto", "unlabeled"])
def test_images_next_to_the_folders_of_splits_are_noted(make_folder: MakeFolder, task: Task) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "val/cat": 1, ".": 2})
    source = open_source(root, task=task)
    assert len(source) == 3
    assert source.notes == (f"{root}: ignored 2 images outside the folders of the splits",)


def test_circular_links_end_and_do_not_mix_classes(make_folder: MakeFolder) -> None:
    root = make_folder({"cat/inner": 2, "dog": 3})
    (root / "cat" / "inner" / "again").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    (root / "cat" / "itself").symlink_to("itself")
    np.testing.assert_array_equal(np.bincount(open_source(root).labels), [2, 3])


def test_files_are_listed_without_asking_the_system_for_each(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    stat = os.stat
    root = make_folder({"cat": 3, "dog/a": 2, "dog/b": 2})
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or stat(path, **options))
    open_folder(root)
    few = len(asked)
    make_folder({"cat": 30, "dog/a": 20, "dog/b": 20})
    asked.clear()
    assert len(open_folder(root)) == 70
    assert len(asked) == few


def test_linked_class_folder_counts_and_a_broken_link_is_unreadable(make_folder: MakeFolder, tmp_path: Path) -> None:
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


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are always text")
def test_undecodable_names_can_be_read_and_printed(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    raw = os.fsencode(root / "cat") + b"/bad\xff.png"
    try:
        shutil.copy(os.fsencode(root / "cat" / "0.png"), raw)
    except OSError:
        pytest.skip("this file system refuses undecodable names")
    source = open_source(root)
    assert len(source) == 3
    assert source.describe(1).encode().endswith(rb"bad\xff.png")
    assert source.image(1).size == (12, 9)
    for character in (b"\xe4", b"\xf6"):  # in Latin-1, as an archive of another system may have them
        shutil.copytree(os.fsencode(root / "cat"), os.fsencode(root) + b"/" + character)
    assert open_source(root).classes == ("\\xe4", "\\xf6", "cat", "dog")


def refusal(path: Path | str) -> str:
    return error_of(lambda: open_source(path))


def test_missing_path_suggests_the_most_similar_set_or_folder(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1})
    with pytest.raises(DataNotFoundError) as caught:
        open_source(root.parent / "sett")
    missing = root.parent / "sett"
    assert str(caught.value) == f"data.source={missing}: no such set and no such folder; did you mean {root}?"
    assert refusal("fashion_mnist") == (
        "data.source=fashion_mnist: no such set and no such folder; did you mean fashion-mnist?"
    )
    assert refusal("/qqq/zzz") == (
        "data.source=/qqq/zzz: no such set and no such folder; "
        "use one of cifar10, cifar100, digits, fashion-mnist, mnist, or the path of an existing folder or table"
    )


def test_missing_path_in_a_folder_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:  # as in the home folder of another user
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    missing = tmp_path / "photos"
    assert refusal(missing).startswith(f"data.source={missing}: no such set and no such folder; use one of cifar10, ")


def test_image_file_is_refused(make_folder: MakeFolder) -> None:
    path = make_folder({"cat": 1}) / "cat" / "0.png"
    assert refusal(path) == (
        f"data.source={path}: a file must be a table (.csv, .tsv or .parquet), an export of a labeling "
        "tool (.json, .xml or .yaml) or a .tar of images; "
        "to train on image files, use the folder that holds one folder per class"
    )


@pytest.mark.parametrize("counts", [{}, {"cat": 0, "dog": 0}])
def test_folder_without_images_is_refused(make_folder: MakeFolder, counts: dict[str, int]) -> None:
    root = make_folder(counts)
    assert refusal(root) == (
        f"data.source={root}: holds no image file; use a folder with one folder of images per class"
    )


@pytest.mark.parametrize(("count", "images"), [(4, "4 images"), (1, "1 image")])
def test_images_without_class_folders_are_counted_and_refused(make_folder: MakeFolder, count: int, images: str) -> None:
    root = make_folder({".": count})
    assert refusal(root) == (
        f"data.source={root}: {images} but no class folders; put the images of each class into a folder with its name; "
        "`predict` and `pretrain` need no classes"
    )


def test_single_class_is_refused_and_its_inner_folder_suggested(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 2})
    assert refusal(root) == (
        f"data.source={root}: only one class, 'cat'; a classifier needs two; add a folder for each other class"
    )
    shutil.rmtree(tmp_path / "set")
    root = make_folder({"unzipped/cat": 2, "unzipped/dog": 1})
    assert refusal(root) == (
        f"data.source={root}: only one class, 'unzipped'; a classifier needs two; did you mean {root / 'unzipped'}?"
    )


@pytest.mark.parametrize("split", ["test", "valid"])
def test_class_that_train_does_not_have_is_refused(make_folder: MakeFolder, split: str) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, f"{split}/cat": 1, f"{split}/dogs": 1})
    folder = root / split / "dogs"
    assert refusal(root) == f"data.source={folder}: train/ has no class of this name; did you mean dog?"


def test_class_unlike_those_of_train_is_to_be_added_or_removed(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/heron": 1})
    assert refusal(root) == (
        f"data.source={root / 'val' / 'heron'}: train/ has no class of this name; add it there, or move the folder "
        "elsewhere"
    )


@pytest.mark.parametrize("unlabeled", ["unknown", "images"])
def test_unlabeled_test_images_are_for_predict(make_folder: MakeFolder, unlabeled: str) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, f"test/{unlabeled}": 2})
    assert refusal(root) == (
        f"data.source={root / 'test' / unlabeled}: train/ has no class of this name; if its images have no known "
        "class, move test/ elsewhere and use `vitreous predict`"
    )


@pytest.mark.parametrize("held_out", ["test", "Validation"])
def test_held_out_folder_among_class_folders_is_refused_instead_of_becoming_a_class(
    make_folder: MakeFolder, held_out: str
) -> None:
    root = make_folder({"cat": 1, "dog": 1, held_out: 1})
    assert refusal(root) == (
        f"data.source={root}: {held_out}/ among the class folders (cat/ and dog/); put the class folders into train/ "
        "if these are held-out images, or use another name if it is a class"
    )


def test_way_out_of_a_held_out_folder_among_class_folders_works(make_folder: MakeFolder) -> None:
    source = open_source(make_folder({"train/cat": 1, "train/dog": 1, "test/cat": 1}))
    assert (source.classes, list(source.splits)) == (("cat", "dog"), ["train", "train", "test"])


def test_class_folders_of_folders_are_classes_and_a_note_says_so(make_folder: MakeFolder) -> None:
    root = make_folder({"animals/cat": 2, "animals/dog": 1, "vehicles/car": 1, "vehicles/bus": 1, "plants": 1})
    source = open_source(root)
    assert source.classes == ("animals", "plants", "vehicles")
    assert source.notes == (
        f"{root}: read as the classes animals/ and vehicles/, although they hold only folders (bus/, car/, cat/ and "
        "dog/); if those are the classes, move them one level up",
    )
    shutil.rmtree(root / "vehicles")
    assert open_source(root).notes == (
        f"{root}: read as the class animals/, although it holds only folders (cat/ and dog/); if those are the "
        "classes, move them one level up",
    )


def test_split_without_class_folders_is_ignored_and_a_note_says_so(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1})
    (root / "val").mkdir()
    assert open_source(root).notes == (f"{root / 'val'}: ignored, because it has no class folder with images",)


def test_refusal_of_one_class_names_the_folder_that_holds_several(make_folder: MakeFolder) -> None:
    root = make_folder({"archive/dataset/cat": 1, "archive/dataset/dog": 1})
    assert refusal(root).endswith(f"did you mean {root / 'archive' / 'dataset'}?")
    assert open_source(root / "archive" / "dataset").classes == ("cat", "dog")


def test_two_folders_of_one_split_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "val/cat": 1, "validation/cat": 1})
    assert refusal(root) == (
        f"data.source={root}: val/ and validation/ are both the val split; merge them or rename one"
    )


def test_val_and_test_without_train_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"test/cat": 1, "val/cat": 1})
    assert refusal(root) == (
        f"data.source={root}: has test/ and val/ but no train/; add train/ with the training images"
    )


def test_other_folder_next_to_splits_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1, "test/cat": 1, "extra/cat": 1})
    assert refusal(root) == (
        f"data.source={root}: extra/ is neither a split nor in one, but test/ and train/ are splits; "
        "move it elsewhere, or into a split if it is a class"
    )


def test_unreadable_folder_is_an_error(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"cat": 1, "dog": 1})

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_of(lambda: open_folder(root)) == (
        f"data.source={root}: could not be read (Permission denied); check the path and its permissions"
    )


def test_file_that_is_deleted_later_is_unreadable(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    source = open_source(root)
    assert isinstance(source, FileSource)
    (root / "cat" / "0.png").unlink()
    with pytest.raises(DecodeError) as caught:
        source.encoded(0)
    assert str(caught.value) == f"{root / 'cat' / '0.png'}: No such file or directory"


@pytest.mark.parametrize("layout", ["classes", "splits"])
@pytest.mark.parametrize(
    "outputs",
    [["runs/photos-1/records.jsonl"], ["runs/photos-1/records.jsonl", "runs/cv/series.json"], ["mine/records.jsonl"]],
)
def test_run_folders_next_to_the_classes_are_ignored_and_counted(
    make_folder: MakeFolder, layout: str, outputs: list[str]
) -> None:
    counts = {"cat": 3, "dog": 2} if layout == "classes" else {"train/cat": 3, "train/dog": 2, "test/cat": 1}
    root = make_folder(counts)
    before = open_folder(root)
    for output in outputs:
        (root / output).parent.mkdir(parents=True)
        (root / output).write_text("{}")
        shutil.copy(root / next(iter(counts)) / "0.png", (root / output).with_name("example.png"))
    source = open_folder(root)
    assert source.classes == before.classes == ("cat", "dog")
    assert list(source.paths) == list(before.paths)
    runs = "1 run folder" if len(outputs) == 1 else "2 run folders"
    assert f"{root}: ignored {runs} of vitreous" in source.notes


def test_run_folder_inside_a_class_is_ignored(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 3, "dog": 2})
    run = root / "cat" / "run"
    run.mkdir()
    (run / "records.jsonl").write_text("{}")
    shutil.copy(root / "cat" / "0.png", run / "example.png")
    assert len(open_folder(root).paths) == 5
