"""More cases of `data/sources/`: data sets by name and address, objects from Python, labels, and damaged files."""

import hashlib
import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fsspec
import numpy as np
import pyarrow
from pyarrow import parquet
from tests.advice.data_cases import LABELED, PIXELS, PLAIN, images, shard, table
from tests.advice.walk import Refusals, case
from tests.unit.data.sources.builders import tar
from tests.unit.data.sources.test_huggingface import Rows, Value, rows

from vitreous import errors
from vitreous.data import label_cells, label_sets
from vitreous.data.sources import check_task, open_object, open_source
from vitreous.data.sources import rows as rows_of_tables
from vitreous.data.sources.named import cifar, official
from vitreous.data.sources.shards import source as shards_source
from vitreous.data.sources.shards import writer

ARRAYS = [np.full((4, 5, 3), level, np.uint8) for level in (1, 2)]


def package(answer: object) -> Any:
    """Put a stub in place of the package `datasets`, which loads or raises the answer."""

    def load(*place: object, **options: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    stub = types.SimpleNamespace(load_dataset=load, load_from_disk=load)
    return patch.dict(sys.modules, {"datasets": stub})


@case
def names_of_the_hub(folder: Path) -> Refusals:
    with patch.dict(sys.modules, {"datasets": None}):
        yield lambda: open_source("hf://ann/cats"), "run `pip install 'vitreous[datasets]'`"
    with package(rows(0, 6)):
        yield lambda: open_source("hf://ann//cats"), "write hf://organization/name"
    answers: Mapping[str, object] = {
        "check the name": FileNotFoundError("no data set cats"),
        "check the network and try again": ConnectionError("no route"),
        "fix the data set": RuntimeError("bad magic"),
        "use a data set with one": {"validation": rows(0, 6)},
    }
    for advice, answer in answers.items():
        with package(answer):
            yield lambda: open_source("hf://ann/cats"), advice
        with package({"train": rows(0, 6)}):
            assert len(open_source("hf://ann/cats")) == 6


@case
def columns_of_the_hub(folder: Path) -> Refusals:
    first = rows(0, 6)
    unsure = Rows({"a": first.features["pixels"], "b": first.features["pixels"]}, {"a": [1] * 6, "b": [2] * 6})
    yield lambda: open_object(unsure), "call rename_column(COLUMN, 'image')"
    named = Rows(
        {"image": first.features["pixels"], "b": first.features["pixels"], "label": first.features["kind"]},
        {"image": first.columns["pixels"], "b": first.columns["pixels"], "label": first.columns["kind"]},
    )
    assert len(open_object(named)) == 6
    unlabeled = Rows(first.features, {**first.columns, "kind": [None] * 6})
    yield lambda: open_object(unlabeled), "use a labeled data set"
    gaps = Rows({**first.features, "kind": Value(), "label": Value()}, {**first.columns, "label": ["a", "b", None] * 2})
    yield lambda: open_object(gaps), "filter such rows out"
    kept = {name: [gaps.columns[name][row] for row in (0, 1, 3, 4)] for name in gaps.columns}
    assert len(open_object(Rows(gaps.features, kept))) == 4


@case
def folders_of_parquet_files(folder: Path) -> Refusals:
    for name in ("train-0.parquet", "more.parquet"):
        (folder / name).touch()
    with package({"train": rows(0, 6)}):
        yield lambda: open_source(folder), "rename it, e.g. to train-more.parquet"
        (folder / "more.parquet").rename(folder / "train-more.parquet")
        assert len(open_source(folder)) == 6


@case
def parquet_tables(folder: Path) -> Refusals:
    images(folder)
    path = folder / "t.parquet"
    columns = {"path": ["cat/0.png", "dog/0.png"] * 400, "label": ["cat", "dog"] * 400}
    parquet.write_table(pyarrow.table({**columns, "image": [{"bytes": PIXELS, "path": ""}] * 800}), path)
    yield lambda: open_source(path), "put it into a folder that has only Parquet files, and give that folder"
    with package({"train": rows(0, 6)}):
        (folder / "hub").mkdir()
        path.rename(folder / "hub" / "t.parquet")
        assert len(open_source(folder / "hub")) == 6
    parquet.write_table(pyarrow.table({**columns, "label": [[1, 0], [0, 1]] * 400}), path)
    yield lambda: open_source(path), "write each label as text"
    parquet.write_table(pyarrow.table({**columns, "label": [["cat"], ["dog"]] * 400}), path)
    assert open_source(path).classes == ("cat", "dog")
    parquet.write_table(pyarrow.table(columns), path, compression="none", use_dictionary=False)
    with patch.object(rows_of_tables, "MAX_ROWS", 799):
        yield lambda: open_source(path), "split the table"
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 40 + content[44:])
    yield lambda: open_source(path), "write the file again"
    path.write_bytes(content)
    assert len(open_source(path)) == 2


@case
def tables_that_cannot_be_opened(folder: Path) -> Refusals:
    path, denied = table(folder, PLAIN), PermissionError(13, "Permission denied")
    with patch.object(Path, "open", side_effect=denied):
        yield lambda: open_source(path), "check the file"
    with patch.object(rows_of_tables.csv, "reader", side_effect=denied):
        yield lambda: open_source(path), "check the file"
    assert len(open_source(path)) == 2


@case
def labels_in_a_table(folder: Path) -> Refusals:
    many = "path,{0}\n" + "".join(f"cat/0.png,c{number}\n" for number in range(3))
    with patch("vitreous.data.sources.table.MAX_CLASSES", 2):
        yield lambda: open_source(table(folder, many.format("label"))), "name the column with the classes `label`"
        assert open_source(table(folder, "path,class,label\ncat/0.png,c0,cat\ndog/0.png,c1,dog\n"))
    with patch.object(label_cells, "MAX_CLASSES", 1):
        yield lambda: open_source(table(folder, PLAIN)), "use at most 1"
    assert len(open_source(table(folder, PLAIN)).classes) == 2
    broken = {
        "path,a,b\ncat/0.png,1,1\ndog/0.png,x,y\n": ("write label above it in the first line", PLAIN),
        "path,label\ncat/0.png,cat\ndog/0.png,\n": ("fill it in or delete the row", PLAIN),
        "path,a,a\ncat/0.png,1,0\ndog/0.png,0,1\n": (
            "give each label a column of its own", "path,a,b\ncat/0.png,1,0\ndog/0.png,0,1\n"),
        "path,a,b;c\ncat/0.png,1,0\ndog/0.png,0,1\n": ("rename it", "path,a,bc\ncat/0.png,1,0\ndog/0.png,0,1\n"),
        "path,label,weight\ncat/0.png,a;b,1\ncat/0.png,a,2\ndog/0.png,b,1\n": (
            "give all rows of an image the same", "path,label,weight\ncat/0.png,a;b,2\ncat/0.png,a,2\ndog/0.png,b,1\n"),
        "path,label,group\ncat/0.png,a,x\ncat/0.png,a,y\ndog/0.png,b,x\n": (
            "give all rows of an image the same", "path,label,group\ncat/0.png,a,x\ncat/0.png,a,x\ndog/0.png,b,x\n"),
    }  # fmt: skip
    for text, (advice, repaired) in broken.items():
        yield lambda text=text: open_source(table(folder, text)), advice
        assert len(open_source(table(folder, repaired))) == 2
    several = "path,a,b\ncat/0.png,1,1\ndog/0.png,0,1\n"
    yield lambda: open_source(table(folder, several), task="single"), "leave data.task out for several labels per image"
    assert open_source(table(folder, several)).is_multilabel
    with patch.object(label_sets, "MAX_CELLS", 5):
        text = "path,label\ncat/0.png,a;b\ndog/0.png,b;c\n"
        yield lambda: open_source(table(folder, text)), "leave out rare labels"
        assert open_source(table(folder, text.replace("c", "a").replace("aat", "cat"))).is_multilabel


@case
def tasks_of_data(folder: Path) -> Refusals:
    images(folder)
    for wrong in (
        lambda: open_source(folder, task="multilabel"),
        lambda: check_task(open_source(folder), "multilabel"),
    ):
        yield wrong, "list the images in a table of paths and labels, with rows such as `photo.jpg,cat;dog`"
    several = open_source(table(folder, "path,label\ncat/0.png,cat;dog\ndog/0.png,dog\n"), task="multilabel")
    check_task(several, "multilabel")
    yield lambda: check_task(several, "single"), "leave it out"
    check_task(several, "auto")
    yield lambda: writer.write_shards(several, folder / "out"), "train on the table"


@case
def labels_from_python(folder: Path) -> Refusals:
    class Named(list[Any]):
        classes = ("cat", "dog")

    def labeled(*labels: object) -> list[Any]:
        return [(ARRAYS[number % 2], label) for number, label in enumerate(labels)]

    broken: tuple[tuple[Any, str, Any], ...] = (
        (labeled("cat", ["cat", "dog"]), "use lists for all", labeled(["cat"], ["cat", "dog"])),
        (Named(labeled("cat", "dogg")), "did you mean dog?", Named(labeled("cat", "dog"))),
        (Named(labeled(0, 2)), "use 0 to 1", Named(labeled(0, 1))),
        (Named(labeled(["cat"], ["dogg"])), "did you mean dog?", Named(labeled(["cat"], ["dog"]))),
        (labeled([0, 1], [0, 2]), "return these numbers", labeled([0, 1], [1, 0])),
        (labeled([0, 1], [0, 2]), "or the names of the labels", labeled(["1"], ["0"])),
        (labeled(["a;b"], ["c"]), "rename it", labeled(["ab"], ["c"])),
        (labeled([0, 0], [0, 0]), "label some of them", labeled([0, 1], [1, 0])),
    )
    for wrong, advice, right in broken:
        yield lambda wrong=wrong: open_object(wrong), advice
        assert len(open_object(right)) == 2


@case
def samples_from_python(folder: Path) -> Refusals:
    class Failing(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index:
                raise OSError("disk gone")
            return super().__getitem__(index)

    pairs = [(image, number) for number, image in enumerate(ARRAYS)]
    random = np.random.default_rng(0)
    moving = type(
        "Moving", (list,), {"__getitem__": lambda self, i: (random.integers(0, 9, (4, 5, 3), np.uint8), i % 2)}
    )
    yield lambda: open_object(np.array(1)), "use a set of (image, label) pairs"
    yield lambda: open_object(Failing(pairs)), "fix or remove it"
    yield lambda: open_object(moving(pairs)), "remove the random transforms"
    assert len(open_object(pairs)) == 2


@case
def folders_without_permission(folder: Path) -> Refusals:
    images(folder / "photos")
    with patch.object(Path, "iterdir", side_effect=PermissionError(13, "Permission denied", str(folder / "photos"))):
        yield lambda: open_source(folder / "photos"), "check the path and its permissions"
    assert len(open_source(folder / "photos")) == 2


@case
def folders_of_splits_and_classes(folder: Path) -> Refusals:
    root = images(folder / "a", "cat/0.png", "dog/1.png", "test/2.png")
    yield lambda: open_source(root), "put the class folders into train/ if these are held-out images"
    yield lambda: open_source(root), "or use another name if it is a class"
    (root / "test").rename(root / "exam")
    assert len(open_source(root).classes) == 3
    (root / "exam").rename(root / "test")
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / name).rename(root / "train" / name)
    images(root, "test/cat/3.png", "more/cat/4.png")
    yield lambda: open_source(root), "move it elsewhere, or into a split if it is a class"
    (root / "more").rename(folder / "elsewhere")
    assert len(open_source(root)) == 3


@case
def addresses_of_tar_files(folder: Path) -> Refusals:
    files = fsspec.filesystem("memory")
    with patch.dict(sys.modules, {"fsspec": None}):
        yield lambda: open_source("memory://set"), "run `pip install 'vitreous[remote]'`"
    with patch.object(errors, "import_module", side_effect=RuntimeError("no operator")):
        yield lambda: open_source("memory://set"), "again, in versions that fit each other"
    with patch.object(fsspec.core, "url_to_fs", side_effect=ImportError("s3fs is not installed")):
        yield lambda: open_source("s3://bucket/a.tar"), "for https:// and s3:// run `pip install 'vitreous[remote]'`"
    yield lambda: open_source("memory://advice/b.tar"), "check the address"
    yield lambda: open_source("nosuch://advice/b.tar"), "check the address"
    yield lambda: open_source("memory://advice"), "check the address"
    files.pipe("/advice/a.tar", tar(LABELED))
    with patch.object(type(files), "_open", side_effect=TimeoutError("timed out")):
        yield lambda: open_source("memory://advice/a.tar"), "check the file and the connection"
    assert len(open_source("memory://advice")) == len(open_source("memory://advice/a.tar")) == 2
    files.rm("/advice", recursive=True)


@case
def tar_files_that_cannot_be_read(folder: Path) -> Refusals:
    path = shard(folder, *LABELED)
    with patch.object(Path, "is_file", side_effect=PermissionError(13, "Permission denied")):
        yield lambda: shards_source.open_shards(str(path)), "check the path and its permissions"
    named = shard(folder / "text", ("0.png", PIXELS), ("0.txt", b"cat"), ("1.png", PIXELS), ("1.txt", b"dog"))
    with patch.object(shards_source, "MAX_CLASSES", 1):
        yield lambda: open_source(named), "store the class in .cls files"
        shard(folder / "text", *LABELED, name="b.tar")
    assert len(open_source(path)) == len(open_source(folder / "text" / "b.tar")) == 2
    source = open_source(images(folder / "photos"))
    (folder / "photos").rename(folder / "moved")
    yield lambda: writer.write_shards(source, folder / "out"), "check the files"
    (folder / "moved").rename(folder / "photos")
    assert writer.write_shards(source, folder / "out")


@case
def sets_that_are_downloaded(folder: Path) -> Refusals:
    records = {name: bytes([number]) + bytes(3072) for number, name in enumerate(("one.bin", "two.bin"))}
    wanted = cifar.CifarSet("tiny", "tiny.tar.gz", "", "tiny", {
        name: hashlib.sha256(content).hexdigest() for name, content in records.items()
    }, 1, ("a", "b"))  # fmt: skip
    content = tar(tuple(records.items()), "w:gz")
    right = replace(wanted, sha256=hashlib.sha256(content).hexdigest())
    environment = {"VITREOUS_DATA": str(folder / "data"), "XDG_CACHE_HOME": str(folder / "cache")}
    with patch.dict("os.environ", environment), patch.object(official, "_download", return_value=b"<html>"):
        yield lambda: cifar.open_cifar(right), "set VITREOUS_DATA to a folder with the official files"
        (folder / "data").mkdir()
        (folder / "data" / "tiny.tar.gz").write_bytes(content)
        assert len(cifar.open_cifar(right)) == 2
        (folder / "data" / "tiny.tar.gz").unlink()
    with patch.dict("os.environ", environment), patch.object(official, "_download", side_effect=OSError("no route")):
        advice = "put tiny.tar.gz into a folder and set the environment variable VITREOUS_DATA to it"
        yield lambda: cifar.open_cifar(right), advice
        (folder / "data" / "tiny.tar.gz").write_bytes(content)
        assert len(cifar.open_cifar(right)) == 2
