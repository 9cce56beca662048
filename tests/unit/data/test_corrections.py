"""Corrections: each action changes exactly what it names, and a row that does not fit the data is refused."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.sources.builders import error_of, png, tar

from vitreous.data.corrections import Correction, corrected, merges, read_corrections, write_corrections
from vitreous.data.doctor.summaries import summarize_source
from vitreous.data.sources import ArraySource, Source, open_object, open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import ConfigError, DataError

MakeFolder = Callable[[Mapping[str, int]], Path]
Row = tuple[str, ...]


def write(path: Path, *rows: Row) -> Path:
    """Write a file of corrections with short rows filled up."""
    write_corrections(path, [(*row, *[""] * (6 - len(row))) for row in rows])
    return path


def classes_of(source: Source) -> dict[str, str]:
    """Return the class of each sample by its key."""
    return {source.key(i): source.classes[label] for i, label in enumerate(source.labels.tolist())}


@pytest.fixture
def photos(make_folder: MakeFolder) -> Path:
    return make_folder({"cat": 7, "dog": 6, "eel": 5})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fix.csv"


def test_only_the_named_images_get_another_class(photos: Path, file: Path) -> None:
    before = open_source(photos)
    after = corrected(
        open_source(photos), write(file, ("cat/3.png", "cat", "relabel", "dog"), ("eel/0.png", "eel", "keep"))
    )
    expected = classes_of(before) | {"cat/3.png": "dog"}
    assert classes_of(after) == expected
    assert after.classes == before.classes
    assert [after.describe(i) for i in range(18)] == [before.describe(i) for i in range(18)]
    assert after.uncorrected is not None
    assert classes_of(after.uncorrected) == classes_of(before)
    assert after.notes[-1] == f"{file} is applied: 2 rows; classes without images: none"


def test_no_file_of_the_data_is_changed(photos: Path, file: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(photos.rglob("*.png"))}
    survey(corrected(open_source(photos), write(file, ("cat/3.png", "cat", "drop"), ("", "eel", "merge", "dog"))))
    assert {path: path.read_bytes() for path in sorted(photos.rglob("*")) if path.is_file()} == before


def test_dropped_image_is_in_no_split_and_changes_no_fact(photos: Path, file: Path) -> None:
    Image.new("RGB", (300, 200)).save(photos / "cat" / "big.png")
    surveyed = survey(corrected(open_source(photos), write(file, ("cat/big.png", "cat", "drop"))))
    members = np.concatenate(list(surveyed.indices.values()))
    assert len(members) == 18
    assert all(not surveyed.source.describe(int(index)).endswith("big.png") for index in members)
    assert surveyed.facts.max_size_px == (9, 12)
    assert surveyed.facts.skipped == ()
    assert len(summarize_source(surveyed.source, surveyed.indices)) == 18


def test_dropped_file_is_not_read(photos: Path, file: Path) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    assert len(survey(open_source(photos)).facts.skipped) == 1
    assert survey(corrected(open_source(photos), write(file, ("cat/bad.png", "cat", "drop")))).facts.skipped == ()


def test_class_without_images_is_left_out_and_a_new_class_is_added(photos: Path, file: Path) -> None:
    rows = [(f"eel/{n}.png", "eel", "relabel:new", "fish") for n in range(4)]
    found = corrected(open_source(photos), write(file, *rows, ("eel/4.png", "eel", "drop")))
    assert found.classes == ("cat", "dog", "fish")
    assert found.notes[-1].endswith("; classes without images: eel")
    assert {name for key, name in classes_of(found).items() if key in {row[0] for row in rows}} == {"fish"}
    surveyed = survey(found)
    assert surveyed.facts.num_train + surveyed.facts.num_val + surveyed.facts.num_test == 17


def test_merged_class_takes_relabeled_images_along(photos: Path, file: Path) -> None:
    found = corrected(
        open_source(photos), write(file, ("", "eel", "merge", "cat"), ("dog/1.png", "dog", "relabel", "eel"))
    )
    assert found.classes == ("cat", "dog")
    expected = {key: key.split("/")[0].replace("eel", "cat") for key in classes_of(found)} | {"dog/1.png": "cat"}
    assert classes_of(found) == expected


@pytest.mark.parametrize("num_folds", [0, 3])
def test_image_that_is_split_to_train_is_never_held_out(photos: Path, file: Path, num_folds: int) -> None:
    rows = [(f"cat/{n}.png", "cat", "split:train") for n in range(6)]
    for seed in range(6):
        for fold in range(max(1, num_folds)):
            found = corrected(open_source(photos), write(file, *rows))
            surveyed = survey(found, test_ratio=0.4, val_ratio=0.3, split_seed=seed, num_folds=num_folds, fold=fold)
            held_out = np.concatenate([surveyed.indices["val"], surveyed.indices["test"]])
            names = {found.key(int(index)) for index in held_out}
            assert names.isdisjoint({row[0] for row in rows})
            assert names


def test_other_images_keep_their_split(photos: Path, file: Path) -> None:
    def splits(source: Source) -> dict[str, str]:
        found = survey(source)
        return {source.key(int(i)): split for split, members in found.indices.items() for i in members}

    before = splits(open_source(photos))
    after = splits(corrected(open_source(photos), write(file, ("cat/0.png", "cat", "drop"))))
    changed = {key for key in after if after[key] != before[key]}
    assert "cat/0.png" not in after
    assert len(changed) <= 1  # a small class may need another one in its place


def test_image_moves_to_a_split_that_the_data_has(make_folder: MakeFolder, file: Path) -> None:
    root = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 3, "test/dog": 3})
    moves = [("train/cat/1.png", "cat", "split:test"), ("test/dog/0.png", "dog", "split:train")]
    source = corrected(open_source(root), write(file, *moves))
    surveyed = survey(source, val_ratio=0.0)
    tested = {source.key(int(index)) for index in surveyed.indices["test"]}
    assert "train/cat/1.png" in tested
    assert "test/dog/0.png" not in tested
    assert len(tested) == 6
    assert (
        error_of(lambda: corrected(open_source(root), write(file, ("train/cat/1.png", "cat", "split:val"))))
        == f"data.corrections={file}: line 2: action=split:val: the data has no val split; write split:train or keep"
    )


def test_fingerprint_is_that_of_the_data_and_of_the_corrections(photos: Path, file: Path) -> None:
    prints = [survey(open_source(photos)).facts.fingerprint]
    for rows in (
        [("cat/3.png", "cat", "relabel", "dog")],
        [("cat/3.png", "cat", "keep")],
        [("cat/4.png", "cat", "keep")],
    ):
        prints += [survey(corrected(open_source(photos), write(file, *rows))).facts.fingerprint for _ in range(2)]
    assert prints[1::2] == prints[2::2]
    assert len(set(prints)) == 4


# Kinds of sources.


def test_paths_of_a_table_are_those_in_the_table(photos: Path, file: Path, tmp_path: Path) -> None:
    table = tmp_path / "lists" / "all.csv"
    table.parent.mkdir()
    lines = [f"{path.relative_to(photos).as_posix()},{path.parent.name},p{n % 3},{1 + n % 2}"
             for n, path in enumerate(sorted(photos.rglob("*.png")))]  # fmt: skip
    table.write_text("\n".join(["path,label,group,weight", *lines]))
    source = corrected(
        open_source(table, photos), write(file, ("dog/2.png", "dog", "relabel", "cat"), ("cat/0.png", "cat", "drop"))
    )
    assert classes_of(source)["dog/2.png"] == "cat"
    surveyed = survey(source)
    assert sum(map(len, surveyed.indices.values())) == 17


def test_images_of_tar_shards_are_named_like_in_messages(file: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 7, 3), dtype=np.uint8)
    entries = [(f"{n}.{kind}", content) for n in range(8)
               for kind, content in (("png", png(pixels[n])), ("cls", str(n % 2).encode()))]  # fmt: skip
    (tmp_path / "train-0.tar").write_bytes(tar(entries))
    source = open_source(tmp_path / "train-0.tar")
    found = corrected(source, write(file, (source.describe(3), "1", "relabel", "0")))
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 0, 0, 1, 0, 1])
    assert found.image(3).tobytes() == pixels[3].tobytes()


def test_images_of_a_named_set_are_named_by_number(file: Path) -> None:
    source = corrected(
        open_source("digits"), write(file, ("digits[17]", "7", "drop"), ("digits[3]", "3", "relabel", "8"))
    )
    assert source.describe(17) == "digits[17]"
    surveyed = survey(source)
    assert 17 not in np.concatenate(list(surveyed.indices.values()))
    assert source.labels[3] == 8


def test_names_of_arrays_do_not_change_with_their_split(file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 8), dtype=np.uint8)
    splits = ["train"] * 6 + ["test"] * 6
    source = ArraySource(
        name="set", classes=("a", "b"), images=images, labels=np.arange(12) % 2, splits=np.array(splits)
    )
    found = corrected(source, write(file, ("set test[2]", "a", "split:train"), ("set train[1]", "b", "split:test")))
    assert [found.describe(i) for i in range(12)] == [source.describe(i) for i in range(12)]
    assert found.splits.tolist() == ["train", "test", *["train"] * 4, "test", "test", "fixed", *["test"] * 3]


def test_python_data_is_corrected(file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
    source = open_object({"train": [(image, n % 2) for n, image in enumerate(images[:6])],
                          "test": [(image, n % 2) for n, image in enumerate(images[6:])]})  # fmt: skip
    found = corrected(source, write(file, ("list test[1]", "1", "relabel", "0")))
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 0, 1]
    assert found.describe(7) == "list test[1]"
    np.testing.assert_array_equal(found.encoded(7), images[7])


def test_several_labels_per_image_are_refused(photos: Path, file: Path, tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    table.write_text("path,label\n" + "".join(f"set/cat/{n}.png,cat;dog\n" for n in range(4)) + "set/dog/0.png,dog\n")
    write(file, ("set/cat/0.png", "cat;dog", "drop"))
    assert error_of(lambda: corrected(open_source(table), file)) == (
        f"data.corrections={file}: tags has several labels per image, which cannot be corrected; leave it out"
    )


# Files.


def test_file_is_read_as_it_was_written(file: Path) -> None:
    rows = [
        Correction('a "b", c.png', " two\nlines", "keep"),
        Correction("ü.png", "ä", "relabel", "ö", "why; not", "0.5"),
    ]
    write_corrections(file, rows)
    assert list(read_corrections(file).values()) == rows
    with file.open(encoding="utf-8", newline="") as opened:
        assert [tuple(row.values()) for row in csv.DictReader(opened)] == rows
    assert merges([*rows, ("", "x", "merge", "y", "", "")]) == {"x": "y"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_file_from_a_spreadsheet_is_read(photos: Path, file: Path, encoding: str) -> None:
    file.write_text("note;to;action;label;path\r\n!;dog;relabel;cat;cat/3.png\r\n;;;;\r\n", encoding=encoding)
    assert classes_of(corrected(open_source(photos), file))["cat/3.png"] == "dog"


HEAD = "path,label,action,to\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,to\na,b,c\n", ": needs one column action; begin with the line path,label,"),
        (HEAD + "cat/9.png,cat,drop,\n", ": line 2: path=cat/9.png: not in the data; did you mean cat/"),
        (HEAD + "x.jpg,cat,drop,\n", ": line 2: path=x.jpg: not in the data; paths are written like cat/0.png"),
        (HEAD + "cat/1.png,cat,drp,\n", ": line 2: action=drp: no such action; did you mean drop?"),
        (HEAD + "cat/1.png,cat,,\n", ": line 2: action=: no such action; use one of drop, keep, "),
        (HEAD + "cat/1.png,cat,relabel,dgo\n", ": line 2: to=dgo: not a class that is left; did you mean dog?, or "),
        (HEAD + "cat/1.png,cat,relabel,\n", ": line 2: to=: not a class that is left; use one of cat, dog, eel"),
        (HEAD + "cat/1.png,cat,relabel:new,dog\n", ": line 2: to=dog: is not a new class; write its name, or "),
        (HEAD + "cat/1.png,cat,relabel:new,\n", ": line 2: to=: is not a new class; write its name, or "),
        (HEAD + "cat/1.png,dog,drop,\n", ": line 2: label=dog: the data has cat here; write that, or "),
        (HEAD + "cat/1.png,cat,drop,\ncat/1.png,cat,keep,\n", ": line 3: path=cat/1.png: is in line 2 too; "),
        (HEAD + "cat/1.png,cat,merge,dog\n", ": line 2: path=cat/1.png: must be empty for the action merge; "),
        (HEAD + ",cat,drop,\n", ": line 2: path=: is needed for the action drop; correct it"),
        (HEAD + ",cta,merge,dog\n", ": line 2: label=cta: not a class, or merged twice; did you mean cat?"),
        (HEAD + ",cat,merge,dog\n,cat,merge,eel\n", ": line 2: label=cat: not a class, or merged twice; merge it once"),
        (HEAD + ",cat,merge,dog\n,dog,merge,eel\n", ": line 2: to=dog: not a class that is left; use one of eel"),
        (HEAD + ",cat,merge,cat\n", ": line 2: to=cat: not a class that is left; use one of dog, eel"),
        (HEAD + ",cat,merge,dog\n,eel,merge,dog\n", ": only one class, 'dog'; a classifier needs two"),
        (HEAD + 'cat/1.png,"cat,drop,\n', ": line 2: unexpected end of data; check the quotes in this line"),
        ("", ": is empty; write the line `path,label,action,to,reason,confidence`, "),
    ],
)  # fmt: skip
def test_row_that_does_not_fit_is_refused(photos: Path, file: Path, text: str, message: str) -> None:
    file.write_text(text)
    assert error_of(lambda: corrected(open_source(photos), file)).startswith(f"data.corrections={file}{message}")


def test_image_that_is_named_in_two_ways_is_refused(photos: Path, file: Path) -> None:
    where = str(photos / "cat" / "1.png")
    write(file, ("cat/1.png", "cat", "drop"), (where, "cat", "keep"))
    assert "is for the image of another row, or two images have it; delete it" in error_of(
        lambda: corrected(open_source(photos), file)
    )


def test_file_that_is_not_there_or_not_csv_is_refused(photos: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.csv"
    assert error_of(lambda: corrected(open_source(photos), gone)).startswith(
        f"data.corrections={gone}: cannot be read ("
    )
    with pytest.raises(ConfigError, match=r"^data.corrections=.*set: is not a .csv file; `vitreous inspect DATA --fix"):
        corrected(open_source(photos), photos)


def test_control_codes_of_a_file_do_not_reach_the_terminal(photos: Path, file: Path) -> None:
    write(file, ("\x1b[2J.png", "cat", "drop"))
    assert "\x1b" not in error_of(lambda: corrected(open_source(photos), file))


def test_class_that_is_only_in_test_after_corrections_is_refused(make_folder: MakeFolder, file: Path) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 4, "test/cat": 3, "test/dog": 3})
    with pytest.raises(DataError, match=r"class 'cat' has images in test but none in train"):
        corrected(open_source(root), write(file, ("train/cat/0.png", "cat", "drop")))


def test_every_sample_is_compared_once_for_many_rows(file: Path) -> None:
    count = 3_000
    images = np.zeros((count, 2, 2), dtype=np.uint8)
    source = ArraySource(
        name="s", classes=("a", "b"), images=images, labels=np.arange(count) % 2, splits=np.array([""] * count)
    )
    rows: Sequence[Row] = [(f"s[{n}]", "ab"[n % 2], "relabel", "ba"[n % 2]) for n in range(count - 1)]
    found = corrected(source, write(file, *rows))
    np.testing.assert_array_equal(found.labels[:-1], 1 - source.labels[:-1])
    assert found.labels[-1] == source.labels[-1]
