"""Samples in tar files: the WebDataset layout, hostile contents, and random access."""

import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.data.sources.builders import error_of, png, tar, write_files

from vitreous.data.augmentation.augment import Augment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import TrainLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import ShardSource, full_name, open_source
from vitreous.data.sources.shards import index as shard_index
from vitreous.data.sources.shards.files import LocalShard
from vitreous.data.sources.shards.index import MAX_JSON_BYTES, index_folder, index_shard
from vitreous.data.sources.shards.source import INFO_NAME, open_shards
from vitreous.data.survey.facts import survey
from vitreous.errors import DataError, DecodeError, VitreousError

Entries = Sequence[tuple[str, bytes]]


def photo(number: int) -> bytes:
    """Return a gray PNG image, 5 px wide and 4 high, different for each number."""
    return png(np.random.default_rng(number).integers(0, 256, (4, 5), dtype=np.uint8))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a tar below the folder `set`; returns the folder."""

    def make(name: str, entries: Entries) -> Path:
        write_files(tmp_path / "set", {name: tar(entries)})
        return tmp_path / "set"

    return make


Write = Callable[..., Path]


def samples(first: int, labels: Sequence[int | str], kind: str = "cls") -> list[tuple[str, bytes]]:
    """Return images and their labels, numbered from `first`."""
    entries = []
    for number, label in enumerate(labels, start=first):
        entries += [(f"{number:04d}.png", photo(number)), (f"{number:04d}.{kind}", str(label).encode())]
    return entries


def refusal(name: str | Path) -> str:
    """Return the error message without the prefix that names the data source."""
    return error_of(lambda: open_shards(str(name))).removeprefix(f"data.source={name}: ")


def test_images_have_their_labels_names_and_bytes(write: Write) -> None:
    folder = write("a-000.tar", samples(0, [2, 0, 1]))
    write("a-001.tar", samples(3, [1, 2]))
    source = open_source(folder)
    assert isinstance(source, ShardSource)
    assert (source.name, source.classes, source.notes) == ("set", ("0", "1", "2"), ())
    np.testing.assert_array_equal(source.labels, [2, 0, 1, 1, 2])
    assert set(source.splits) == {""}
    assert (source.groups, source.weights, source.test_ratio) == (None, None, None)
    assert [source.content(index) for index in range(5)] == [photo(number) for number in range(5)]
    assert source.describe(4) == f"{folder / 'a-001.tar'}/0004.png"
    assert (source.image(4).size, source.header(4, source.content(4)).is_gray) == ((5, 4), True)


@pytest.mark.parametrize(
    ("contents", "classes", "labels"),
    [
        ({"cls": ["cat", "äpfel", " cat\n"]}, ("cat", "äpfel"), [0, 1, 0]),
        ({"txt": ["cat", "dog", "cat"]}, ("cat", "dog"), [0, 1, 0]),
        ({"txt": ["10", "9", "10"]}, ("9", "10"), [1, 0, 1]),
        ({"json": ['{"label": 4}', '{"label": 7}', '{"label": 4}']}, ("4", "7"), [0, 1, 0]),
        ({"json": ['{"class_name": "x", "other": 1}', '{"class_name": "y"}', '{"Class Name": "x"}']}, ("x", "y"),
         [0, 1, 0]),
        ({"cls": ["1", "0", "1"], "json": ['{"label": "cat"}'] * 3, "txt": ["a photo"] * 3}, ("0", "1"), [1, 0, 1]),
        ({"json": ['{"caption": "far"}'] * 3, "txt": ["a", "b", "a"]}, ("a", "b"), [0, 1, 0]),
        ({"CLS": ["1", "0", "1"]}, ("0", "1"), [1, 0, 1]),
    ],
)  # fmt: skip
def test_label_is_read_from_cls_then_json_then_txt(
    contents: dict[str, list[str]], classes: tuple[str, ...], labels: list[int], write: Write
) -> None:
    entries = []
    for number in range(3):
        entries.append((f"x/{number}.png", photo(number)))
        entries += [(f"x/{number}.{kind}", texts[number].encode()) for kind, texts in contents.items()]
    source = open_shards(str(write("a.tar", entries)))
    assert source.classes == classes
    np.testing.assert_array_equal(source.labels, labels)


def test_info_file_names_the_classes_in_order(write: Write) -> None:
    folder = write("a.tar", samples(0, [2, 0]))
    (folder / INFO_NAME).write_text(json.dumps({"classes": ["z", "never", "a"], "test_share": 0.35}))
    source = open_shards(str(folder))
    assert (source.classes, source.labels.tolist(), source.test_ratio) == (("z", "never", "a"), [2, 0], 0.35)
    (folder / INFO_NAME).write_text(json.dumps({"classes": ["z", "never"]}))
    assert refusal(folder) == "label=2: not one of the 2 classes; use 0 to 1"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", f"{INFO_NAME} next to a.tar is not valid JSON; fix or remove it"),
        ('{"classes": ["a", "a"]}', f"classes in {INFO_NAME} must be a list of different texts; fix or remove them"),
        ('{"classes": [1, 2]}', f"classes in {INFO_NAME} must be a list of different texts; fix or remove them"),
        ('{"classes": 5}', f"classes in {INFO_NAME} must be a list of different texts; fix or remove them"),
    ],
)
def test_invalid_info_file_is_refused(text: str, rule: str, write: Write) -> None:
    folder = write("a.tar", samples(0, [1, 0]))
    (folder / INFO_NAME).write_text(text)
    assert refusal(folder) == rule


def test_groups_and_weights_of_json_are_kept(write: Write) -> None:
    entries = samples(0, [1, 0, 1])
    entries[2:2] = [("0000.json", b'{"group": "anna", "weight": 2.5}')]
    entries.append(("0002.json", b'{"group": 7}'))
    source = open_shards(str(write("a.tar", entries)))
    assert source.groups is not None
    assert source.weights is not None
    assert source.groups.tolist() == ["anna", "", "7"]
    assert source.weights.tolist() == [2.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar"), ["train", "train", "val", "test"]),
        (("imagenet-train-000000.tar", "imagenet-validation-000000.tar"), ["train", "val"]),
        (("train/0.tar", "train/1.tar", "dev/0.tar"), ["train", "train", "val"]),
        (("Training_0.tar", "testing_0.tar"), ["train", "test"]),
        (("train-0.tar", "train-1.tar"), ["", ""]),
        (("test-0.tar",), [""]),
        (("trainer-0.tar", "latest-0.tar"), ["", ""]),
    ],
)
def test_splits_come_from_the_names_of_tars_or_their_folders(
    files: tuple[str, ...], splits: list[str], write: Write
) -> None:
    for number, file in enumerate(files):
        folder = write(file, samples(2 * number, [0, 1]))
    source = open_shards(str(folder))
    found = {Path(source.describe(index)).parent.relative_to(folder).as_posix(): str(source.splits[index])
             for index in range(len(source))}  # fmt: skip
    assert found == dict(zip(files, splits, strict=True))


def test_single_tar_and_pattern_are_opened(write: Write) -> None:
    folder = write("photos-train-0.tar", samples(0, [0, 1]))
    write("photos-train-1.tar", samples(2, [0, 1]))
    one, both = open_source(folder / "photos-train-1.tar"), open_source(f"{folder}/photos-train-{{0..1}}.tar")
    assert (one.name, len(one), one.content(0)) == ("photos-train-1", 2, photo(2))
    assert (both.name, len(both), both.content(3)) == ("photos-train", 4, photo(3))
    assert full_name(f"{folder}/../set/photos-train-{{0..1}}.tar") == f"{folder}/photos-train-{{0..1}}.tar"
    assert full_name("s3://bucket/x-{0..3}.tar") == "s3://bucket/x-{0..3}.tar"


@pytest.mark.parametrize(
    ("entries", "note"),
    [
        ([("x.jpg", b"y")], "samples without a label are left out (1, e.g. a.tar: x)"),
        ([("x.cls", b"1")], "samples without an image are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.cls", b"-1")], "samples without a label are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.cls", b"9" * 12)],
         "samples with a label that is not a class index are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.cls", b"1" * 300)],
         "samples with a .cls of over 256 bytes are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.cls", b"\xff")],
         "samples with a .cls that is not UTF-8 text are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.json", b"[" * 200_000)],
         "samples with a .json that is not valid JSON are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.json", b" " * MAX_JSON_BYTES + b"1")],
         "samples with a .json of over 1,048,576 bytes are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.json", b'{"label": [3]}')],
         "samples with a label of type list in .json are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.json", b'{"class": 3, "target": 4}')],
         "samples with both class and target in .json, either of which could be the label, are left out (1, e.g. a.t"),
        ([("x.jpg", b"y"), ("x.cls", b"1"), ("x.json", b'{"weight": -1}')],
         "samples with a weight that is not a number of at least 0 are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.cls", b"1"), ("x.json", b'{"weight": 1%s}' % (b"0" * 400))],
         "samples with a weight that is not a number of at least 0 are left out (1, e.g. a.tar: x)"),
        ([("x.jpg", b"y"), ("x.jpg", b"z"), ("x.txt", b"")], "repeated files are left out (1, e.g. a.tar: x.jpg)"),
        ([("x.pyd", b"y"), ("x.out.pth", b"y")],
         "files that could hold code are never opened (2, e.g. a.tar: x.pyd, a.tar: x.out.pth)"),
    ],
)  # fmt: skip
def test_unusable_samples_are_left_out_with_a_note(entries: Entries, note: str, write: Write) -> None:
    source = open_shards(str(write("a.tar", [*samples(0, [1, 0]), *entries])))
    assert len(source) == 2
    assert source.notes[0].startswith(note)
    assert source.notes[0].endswith(")")


def test_masks_hidden_files_and_further_images_do_not_replace_the_image(write: Write) -> None:
    entries = [("1.mask.png", b"no"), *samples(1, [4]), ("2.mask.png", b"no"), ("._2.png", b"no"), ("readme", b"no")]
    entries = [(name.replace("0001", "1"), content) for name, content in entries]
    entries += [("2.png", photo(2)), ("2.jpg", b"other"), ("2.cls", b"5")]
    source = open_shards(str(write("a.tar", entries)))
    assert [source.content(index) for index in range(2)] == [photo(1), photo(2)]
    assert source.notes == ("samples with several images (png, jpg) use only the first (1, e.g. a.tar: 2)",)


def test_folders_are_part_of_keys_and_their_dots_do_not_begin_extensions(write: Write) -> None:
    entries = [("v1.0/a/1.png", photo(1)), ("v1.0/a/1.cls", b"0"), ("v1.0/b/1.png", photo(2)), ("v1.0/b/1.cls", b"1")]
    source = open_shards(str(write("a.tar", entries)))
    assert source.labels.tolist() == [0, 1]


def test_links_absolute_paths_and_parent_paths_are_only_names(write: Write, tmp_path: Path) -> None:
    folder = write("a.tar", [("/etc/1.png", photo(0)), ("/etc/1.cls", b"0"), ("../../2.png", photo(1)),
                             ("../../2.cls", b"1")])  # fmt: skip
    with tarfile.open(folder / "a.tar", "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("3.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    source = open_shards(str(folder))
    assert [source.content(index) for index in range(2)] == [photo(0), photo(1)]
    assert source.notes == ("links, devices and sparse files are left out (2, e.g. a.tar)",)
    assert {path.name for path in tmp_path.rglob("*")} == {"set", "a.tar"}


def test_truncated_tar_yields_complete_samples_and_one_without_samples_is_an_error(write: Write) -> None:
    folder = write("a.tar", samples(0, [0, 1, 2]))
    whole = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(whole[: 4 * 1024 + 512])
    source = open_shards(str(folder))
    assert source.labels.tolist() == [0, 1]
    assert source.notes[-1].startswith("damaged tar files are used up to the damage (1, e.g. a.tar: cut short: ")
    (folder / "a.tar").write_bytes(whole[:600])
    assert refusal(folder).startswith(
        "no labeled image in 1 tar file (damaged tar files are used up to the damage (1, e.g. a.tar"
    )
    (folder / "a.tar").write_bytes(b"\x1f\x8b" + whole)
    assert refusal(folder / "a.tar").startswith(
        "the file is compressed with gzip, so samples cannot be read individually; "
    )


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (
            [],
            "no labeled image in 1 tar file (no samples at all); "
            "add a .cls, .json or .txt file with the class next to each image",
        ),
        ([3, 3], "only one class, '3'; a classifier needs two, so add images of another"),
        (["cat", "dog", 3], "labels 'cat' and 3 mix numbers and names; use either class indices or class names"),
    ],
)
def test_shards_that_no_classifier_can_be_trained_on_are_refused(
    labels: list[int | str], rule: str, write: Write
) -> None:
    assert refusal(write("a.tar", samples(0, labels))) == rule


def test_missing_train_split_and_classes_without_training_images_are_refused(write: Write) -> None:
    folder = write("val-0.tar", samples(0, ["cat", "owl"]))
    write("test-0.tar", samples(2, ["cat"]))
    assert refusal(folder) == ("has shards of test and val but none of train; add shards named like train-000.tar")
    write("train-0.tar", samples(4, ["cat", "dog"]))
    assert refusal(folder) == (
        "class 'owl' has images in val but none in train; add some to train, or leave the class out of val"
    )
    write("train-0.tar", samples(4, ["cat", "dog", "owl"]))
    assert len(open_shards(str(folder))) == 6


def test_weights_that_are_all_zero_are_refused(write: Write) -> None:
    folder = write("a.tar", [(f"{n}.{kind}", content) for n in range(2) for kind, content in (
        ("png", photo(n)), ("cls", b"%d" % n), ("json", b'{"weight": 0}'))])  # fmt: skip
    assert refusal(folder) == "all 2 weights are 0; give some images a weight above 0"


def test_changed_shard_is_unreadable_instead_of_wrong(write: Write) -> None:
    folder = write("a.tar", samples(0, [0, 1]))
    source = open_shards(str(folder))
    os.utime(folder / "a.tar", ns=(5, 5))
    with pytest.raises(DecodeError, match="has changed since it was opened"):
        source.content(1)


def test_root_needs_a_table(write: Write) -> None:
    with pytest.raises(DataError, match=r"^data\.root=x: only applies to a table"):
        open_source(write("a.tar", samples(0, [0, 1])), "x")


def test_index_of_a_large_shard_is_cached_until_the_shard_changes(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_index, "_CACHED_FROM_BYTES", 1)
    entries = [*samples(0, ["a", "ä"]), ("0001.json", b'{"group": "g", "weight": 3}'), ("x.jpg", b"")]
    folder = write("a.tar", entries)
    first = open_shards(str(folder))
    (cached,) = index_folder().iterdir()
    monkeypatch.setattr(shard_index, "_scan", lambda members: pytest.fail("the shard was read again"))
    again = open_shards(str(folder))
    assert again.labels.tolist() == first.labels.tolist()
    assert (again.classes, again.notes, again.content(1)) == (first.classes, first.notes, photo(1))
    assert again.groups is not None
    assert again.weights is not None
    assert (again.groups.tolist(), again.weights.tolist()) == (["", "g"], [1.0, 3.0])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(index_folder().parent.parent))
    write("a.tar", samples(5, [1, 0]))
    assert open_shards(str(folder)).content(0) == photo(5)
    assert cached.exists()


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-9], lambda text: "[]", lambda text: text.replace('"offsets": [', '"offsets": [9, '),
     lambda text: text.replace('"sizes": [', '"sizes": [1e9, ').replace('"offsets": [', '"offsets": [1, '),
     lambda text: text.replace("1024", "99999999"), lambda text: text.replace('"names": [', '"names": [5, ')],
)  # fmt: skip
def test_damaged_cached_index_is_replaced(
    damage: Callable[[str], str], write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shard_index, "_CACHED_FROM_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write("a.tar", samples(0, [0, 1, 1]))
    open_shards(str(folder))
    (cached,) = index_folder().iterdir()
    cached.write_text(damage(cached.read_text()))
    assert [open_shards(str(folder)).content(index) for index in range(3)] == [photo(number) for number in range(3)]


@pytest.fixture
def memory(write: Write) -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for number in range(2):
        name = f"train-{number}.tar"
        files.pipe_file(f"/shards/{name}", (write(name, samples(3 * number, [0, 1, 1])) / name).read_bytes())
    files.pipe_file(f"/shards/{INFO_NAME}", b'{"classes": ["no", "yes"]}')
    yield "memory://shards"
    files.rm("/shards", recursive=True)


def test_shards_at_an_address_have_the_same_samples(memory: str) -> None:
    for name in (memory, f"{memory}/train-{{0..1}}.tar"):
        source = open_source(name)
        assert (source.classes, source.labels.tolist()) == (("no", "yes"), [0, 1, 1, 0, 1, 1])
        assert [source.content(index) for index in range(6)] == [photo(number) for number in range(6)]
    assert source.describe(5) == "memory:///shards/train-1.tar/0005.png"
    assert len(list(index_folder().iterdir())) == 2


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
def test_processes_that_share_an_epoch_neither_drop_nor_repeat_a_sample(num_processes: int, write: Write) -> None:
    for number, count in enumerate((5, 1, 13)):  # very unequal shards
        folder = write(f"a-{number}.tar", samples(20 * number, [n % 2 for n in range(count)]))
    source = open_shards(str(folder))
    everything = sorted(source.content(index) for index in range(19))
    preprocess = Preprocess(img_size=(4, 5), in_chans=1, mean=(0.5,), std=(0.5,))
    store = load_store(source, np.arange(19), preprocess)
    loader = TrainLoader(store, preprocess, Augment(), 4, seed=3)
    order = np.concatenate([loader.batch(step).indices for step in range(int(loader.steps_per_epoch))])
    shares = [order[rank::num_processes] for rank in range(num_processes)]
    seen = sorted(source.content(int(index)) for share in shares for index in share)
    assert seen == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert order.tolist() != sorted(order)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=10), length=st.integers(0, 10240)
)
def test_altered_shard_yields_samples_or_one_error(changes: list[tuple[int, int]], length: int, tmp_path: Path) -> None:
    entries = [*samples(0, [0, 1]), ("0001.json", b'{"weight": 2}'), *samples(2, [1])]
    altered = bytearray(tar(entries)[:length])
    for place, value in changes:
        if place < len(altered):
            altered[place] = value
    (tmp_path / "a.tar").write_bytes(altered)
    message = ""
    try:
        survey(open_shards(str(tmp_path / "a.tar")))
    except VitreousError as error:
        message = str(error)
    assert "\n" not in message


def test_memory_of_an_index_per_sample_is_bounded(tmp_path: Path) -> None:
    entries = ((f"{number:06d}-photo.{kind}", b"7") for number in range(1_500) for kind in ("jpg", "cls"))
    (tmp_path / "a.tar").write_bytes(tar(entries, format=tarfile.USTAR_FORMAT))
    tracemalloc.start()
    index = index_shard(LocalShard(tmp_path / "a.tar"))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index.labels) == 1_500
    assert held / 1_500 < 150
    assert peak / 1_500 < 250
