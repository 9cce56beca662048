"""Cases of `data/`: folders, tables, tar files, Python objects and binary files that are refused, then repaired."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from tests.advice.walk import Refusals, case
from tests.unit.data.sources.builders import png, tar

from vitreous.data.sampling import check_weights
from vitreous.data.sources import open_object, open_source, rows
from vitreous.data.sources.named import idx
from vitreous.data.sources.shards import files, writer
from vitreous.data.survey.facts import survey

PIXELS = png(np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8))
PLAIN = "path,label\ncat/0.png,cat\ndog/0.png,dog\n"


def images(folder: Path, *names: str) -> Path:
    """Write different images."""
    for number, name in enumerate(names or ("cat/0.png", "dog/0.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, dtype=np.uint8)).save(folder / name)
    return folder


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    """Write a table next to two images."""
    images(folder)
    (folder / name).write_bytes(text.encode())
    return folder / name


def named(first: str, second: str) -> str:
    """Return a table with two paths."""
    return f'path,label\n"{first}",cat\n"{second}",dog\n'


@case
def paths_in_a_table_that_are_written_differently(folder: Path) -> Refusals:
    (folder / "a b").mkdir()
    variants = {
        r"cat\0.png": r"they have \ between folders; write them like cat/0.png",
        r".\cat\0.png": r"they have \ between folders; write them like cat/0.png",
        r"C:\photos\cat\0.png": "write them like cat/0.png",
        "/photos of ann/cat/0.png": "they begin with a folder that does not exist here; write them like cat/0.png",
        "cat/0.png ": "they have blanks around them; write them like cat/0.png",
        "cat/0": "their ending .png is missing; write them like cat/0.png",
        "CAT/../cat/0.PNG": "no such file was found",
        "cat/0.PNG": "upper and lower case differ; write them like cat/0.png",
        f"file://{folder}/cat/0.png": f"they begin with file:; write them like {folder}/cat/0.png",
        r"cat\0": r"they have \ between folders and their ending .png is missing; write them like cat/0.png",
        "https://example.org/0.png": "they are addresses; download the images, and write their paths",
    }
    for written, advice in variants.items():
        path = table(folder, named(written, "x"))
        yield lambda path=path: open_source(path), advice
        table(folder, named(advice.rpartition("like ")[2] if "like" in advice else "cat/0.png", "dog/0.png"))
        assert len(open_source(path)) == 2


@case
def paths_in_a_table_that_are_relative_to_another_folder(folder: Path) -> Refusals:
    images(folder)
    (folder / "tables" / "old").mkdir(parents=True)
    (folder / "tables" / "old" / "t.csv").write_text(PLAIN)
    path = folder / "tables" / "old" / "t.csv"
    yield lambda: open_source(path), f"they are relative to another folder; set data.root={folder}"
    assert len(open_source(path, root=folder)) == 2
    (folder / "near.csv").write_text("path,label\n0.png,cat\n1.png,dog\n")
    images(folder / "cat", "1.png")
    yield lambda: open_source(folder / "near.csv"), f"set data.root={folder}/cat"
    assert len(open_source(folder / "near.csv", root=folder / "cat")) == 2
    path = table(folder, PLAIN)
    yield lambda: open_source(path, root=folder / "tables"), "leave data.root out"
    assert len(open_source(path)) == 2
    path = table(folder, named("gone/0.png", "gone/1.png"))
    yield lambda: open_source(path), "set data.root to the folder that they are relative to"
    images(folder / "moved", "gone/0.png", "gone/1.png")
    assert len(open_source(path, root=folder / "moved")) == 2


@case
def cells_of_a_table(folder: Path) -> Refusals:
    broken = {
        "": ("write the line `path,label`, then one line per image", PLAIN),
        "path,label\n": ("add one row per image", PLAIN),
        "pathh,label\n": ("if it is pathh, rename that to path", PLAIN),
        "x,label\ncat/0.png,cat\n": ("write path above it in the first line", PLAIN),
        "file,image,label\n": ("rename the right one to path", PLAIN),
        PLAIN + "cat/1.png,a,b\n": ("put cells that contain the delimiter in quotes", PLAIN + 'cat/1.png,"a,b"\n'),
        PLAIN + ",cat\n": ("fill it in or delete the row", PLAIN),
        PLAIN + 'a"b",c"\n"': ("check the quotes in this line", PLAIN),
        PLAIN.replace("dog\n", "cat\n"): ("add images of another", PLAIN),
        "path,label,weight\ncat/0.png,cat,x\n": ("leave the cell empty for 1", "path,label,weight\ncat/0.png,cat,\n"
                                                 "dog/0.png,dog,2\n"),
        "path,label,weight\ncat/0.png,cat,0\ndog/0.png,dog,0\n": ("give some images a weight above 0", PLAIN),
        "path,label,split\ncat/0.png,cat,trian\n": ("did you mean train?", "path,label,split\ncat/0.png,cat,train\n"
                                                    "dog/0.png,dog,\n"),
        "path,label,split\ncat/0.png,cat,\ndog/0.png,dog,test\n": ("add some to train", PLAIN),
    }  # fmt: skip
    for text, (advice, repaired) in broken.items():
        path = table(folder, text)
        yield lambda path=path: open_source(path), advice
        assert len(open_source(table(folder, repaired))) >= 2


@case
def a_table_of_another_kind(folder: Path) -> Refusals:
    path = table(folder, PLAIN, "t.txt")
    yield lambda: open_source(path), "a file must be a table (.csv, .tsv or .parquet)"
    assert len(open_source(path.rename(folder / "t.csv"))) == 2
    path = folder / "t.csv"
    path.write_bytes(PLAIN.replace("dog\n", "gürtel\n").encode("latin-1"))
    yield lambda: open_source(path), "save the table as UTF-8"
    path.write_text(PLAIN.replace("dog\n", "gürtel\n"), encoding="utf-8")
    assert open_source(path).classes == ("cat", "gürtel")
    (folder / "t.parquet").write_bytes(b"PAR1 is not enough")
    yield lambda: open_source(folder / "t.parquet"), "write it again, or use .csv"
    with patch.dict("sys.modules", {"pyarrow": None}):
        yield lambda: open_source(folder / "t.parquet"), "or use .csv"
    assert len(open_source(path)) == 2
    with patch.object(rows, "MAX_ROW_CHARS", 30):
        yield lambda: open_source(table(folder, PLAIN + "x" * 40)), "check the quotes in this line"


@case
def a_root(folder: Path) -> Refusals:
    path = table(folder, PLAIN)
    yield lambda: open_source(path, root=folder / "gone"), "use the folder that the table's paths are relative to"
    assert len(open_source(path, root=folder)) == 2
    yield lambda: open_source(path, root=folder / "cat"), "leave data.root out"
    path = table(folder / "cat", named("../cat/0.png", "../dog/0.png"))
    images(folder)
    yield lambda: open_source(path, root=folder / "cat"), "use a root that contains all images"
    yield lambda: open_source(folder, root=folder), "leave it out"
    yield lambda: open_source(folder, root=folder, task="unlabeled"), "leave it out"
    assert open_source(folder, task="unlabeled").is_unlabeled
    assert len(open_source(table(folder, PLAIN), root=folder)) == 2


@case
def a_name(folder: Path) -> Refusals:
    yield lambda: open_source("digit"), "did you mean digits?"
    assert len(open_source("digits")) == 1797
    yield lambda: open_source("a" * 5000), "check the path"
    images(folder / "photos")
    yield lambda: open_source(folder / "photo"), f"did you mean {folder}/photos?"
    yield lambda: open_source(folder / "zebra"), "or the path of an existing folder or table"
    assert len(open_source(folder / "photos")) == 2
    yield lambda: open_source("python:list"), "pass it again"


@case
def folders(folder: Path) -> Refusals:
    broken: Mapping[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
        "empty": (("cat/notes.txt/x.png",), "only one class", ("dog/0.png",)),
        "loose": (("0.png", "1.png"), "put the images of each class into a folder", ("a/0.png", "b/1.png")),
        "lone": (("train/cat/0.png",), "a classifier needs two", ("train/dog/0.png",)),
        "no train": (("val/cat/0.png", "val/dog/0.png"), "add train/", ("train/cat/0.png", "train/dog/0.png")),
        "strange": (
            ("train/cat/0.png", "train/dog/0.png", "val/cow/0.png"), "move val/ elsewhere", ("train/cow/0.png",),
        ),
    }  # fmt: skip
    for name, (present, advice, added) in broken.items():
        images(folder / name, *present)
        yield lambda name=name: open_source(folder / name), advice
        images(folder / name, *added)
        assert len(open_source(folder / name).classes) >= 2
    images(folder / "twice", "train/cat/0.png", "train/dog/0.png", "val/cat/0.png", "valid/dog/0.png")
    yield lambda: open_source(folder / "twice"), "merge them or rename one"
    (folder / "twice" / "valid" / "dog").rename(folder / "twice" / "val" / "dog")
    (folder / "twice" / "valid").rmdir()
    assert len(open_source(folder / "twice")) == 4
    (folder / "nothing").mkdir()
    yield lambda: open_source(folder / "nothing"), "use a folder with one folder of images per class"


@case
def unreadable_images(folder: Path) -> Refusals:
    for name in ("cat/0.png", "dog/0.png"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"no image")
    yield lambda: survey(open_source(folder)), "check them"
    images(folder, "cat/0.png")
    yield lambda: survey(open_source(folder)), "add images of another class"
    images(folder)
    assert survey(open_source(folder)).facts.classes == ("cat", "dog")
    yield lambda: survey(open_source(folder), num_folds=3), "add more"
    images(folder, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(9)))
    assert survey(open_source(folder), num_folds=3).facts.num_test


def shard(folder: Path, *entries: tuple[str, bytes], name: str = "a.tar") -> Path:
    """Write a tar file into a new folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tar(entries))
    return folder / name


LABELED = (("0.png", PIXELS), ("0.cls", b"0"), ("1.png", PIXELS), ("1.cls", b"1"))


@case
def tar_files(folder: Path) -> Refusals:
    path = shard(folder, *LABELED)
    yield lambda: open_source(folder / "b.tar"), "did you mean a.tar?"
    assert len(open_source(path)) == 2
    (folder / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    yield lambda: open_source(folder / "a.tar.gz"), "decompress it once with gunzip"
    (folder / "hidden.tar").write_bytes(gzip.compress(path.read_bytes()))
    yield lambda: open_source(folder / "hidden.tar"), "decompress it once with gunzip"
    (folder / "hidden.tar").write_bytes(gzip.decompress((folder / "hidden.tar").read_bytes()))
    assert len(open_source(folder / "hidden.tar")) == 2
    path.write_bytes(b"no tar file" * 100)
    yield lambda: open_source(path), "use .tar files from webdataset or `vitreous shard`"
    shard(folder, ("0.png", PIXELS), ("1.png", PIXELS))
    yield lambda: open_source(path), "add a .cls, .json or .txt file with the class next to each image"
    shard(folder, *LABELED)
    for content in (b"{", b'{"classes": ["a", "a"]}'):
        (folder / "_info.json").write_bytes(content)
        yield lambda: open_source(path), "fix or remove"
        (folder / "_info.json").unlink()
        assert len(open_source(path)) == 2
    shard(folder / "val", *LABELED, name="val-0.tar")
    shard(folder / "val", *LABELED, name="test-0.tar")
    yield lambda: open_source(folder / "val"), "add shards named like train-000.tar"
    shard(folder / "val", *LABELED, name="train-000.tar")
    assert len(open_source(folder / "val")) == 6


@case
def patterns_of_tar_files(folder: Path) -> Refusals:
    for number in range(3):
        shard(folder, *LABELED, name=f"a-{number}.tar")
    assert len(open_source(f"{folder}/a-{{0..2}}.tar")) == 6
    yield lambda: open_source(f"{folder}/a-{{2..0}}.tar"), "write {0..2}"
    yield lambda: open_source(f"{folder}/a-{{0}}.tar"), "write e.g. {000..007} or {train,val}"
    assert len(open_source(f"{folder}/a-{{0,2}}.tar")) == 4
    with patch.object(files, "MAX_SHARDS", 2):
        yield lambda: open_source(f"{folder}/a-{{0..2}}.tar"), "use a shorter range"
        assert len(open_source(f"{folder}/a-{{0..1}}.tar")) == 4


@case
def shards_to_write(folder: Path) -> Refusals:
    source = open_source(images(folder / "photos"))
    (folder / "out").mkdir()
    (folder / "out" / "x").touch()
    yield lambda: writer.write_shards(source, folder / "out"), "use a new folder"
    assert writer.write_shards(source, folder / "new")
    yield lambda: writer.write_shards(source, folder / "zero", max_samples=0), "leave it out to use the default"


@case
def objects_from_python(folder: Path) -> Refusals:
    image = Image.new("RGB", (5, 4))
    pairs = [(image, "cat"), (Image.new("RGB", (5, 4), "red"), "dog")]
    assert len(open_object(pairs)) == 2
    broken = {
        "use a set of (image, label) pairs that has both, not a stream": iter(pairs),
        "use a set with (image, label) pairs": [],
        "return (image, label)": [image, image],
        "return an int or a str": [(image, 0.5), (image, "dog")],
        "use either class indices or class names": [(image, 0), (image, "dog")],
        "use train, val and test": {"train": pairs, "tset": pairs},
        "use (train, val) or (train, val, test)": (pairs, pairs, pairs, pairs),
    }
    for advice, wrong in broken.items():
        yield lambda wrong=wrong: open_object(wrong), advice
    assert len(open_object({"train": pairs, "test": pairs})) == 4
    assert len(open_object((pairs, pairs))) == 4


@case
def weights_of_samples(folder: Path) -> Refusals:
    check_weights(np.array([1.0, 0.0]), 2)
    yield lambda: check_weights(np.array([1.0]), 2), "give one weight per image"
    yield lambda: check_weights(np.array([1.0, -1.0]), 2), "must be finite and at least 0; correct it"
    yield lambda: check_weights(np.array([0.0, 0.0]), 2), "set at least one weight above 0"


@case
def idx_files(folder: Path) -> Refusals:
    valid = b"\0\0\x08\x01\0\0\0\x02ab"
    packed = gzip.compress(valid)
    for content in (b"\0\0\x08\x01", valid + b"c", valid[:-1]):
        yield lambda content=content: idx.parse(content, "x"), "download the file again"
    yield lambda: idx.parse(b"PK", "x"), "check that this is the right file"
    yield lambda: idx.unpack(packed[:10] + b"\xff" * 8, "x"), "download"
    yield lambda: idx.unpack(packed[:-4], "x"), "download it again"
    yield lambda: idx.unpack(packed + b"x", "x"), "download it again"
    with patch.object(idx, "MAX_BYTES", 4):
        yield lambda: idx.unpack(packed, "x"), "check that it is an idx file"
    assert idx.parse(idx.unpack(packed, "x"), "x").tolist() == [97, 98]
