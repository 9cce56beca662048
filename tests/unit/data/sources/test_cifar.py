import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.sources import ArraySource, cifar, open_source
from vitreous.data.sources.cifar import CIFAR10, CIFAR100, CifarSet, open_cifar
from vitreous.data.sources.official import cache_folder
from vitreous.errors import DataError, DataNotFoundError

PLANES = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
COARSE = np.array([9, 8, 7, 6, 5, 4, 3], np.uint8)
FINE = np.array([0, 1, 2, 1, 0, 2, 1], np.uint8)


def records(rows: slice, label_bytes: int) -> bytes:
    labels = np.stack([COARSE, FINE], axis=1)[rows, 2 - label_bytes :]
    return np.concatenate([labels, PLANES[rows].reshape(-1, 3072)], axis=1).tobytes()


def packed(contents: dict[str, bytes], folder: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in {**contents, "readme.html": b"<html>", "../escape.bin": b"no"}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


PARTS = {
    "data_batch_1.bin": records(slice(0, 3), 1),
    "data_batch_2.bin": records(slice(3, 5), 1),
    "test_batch.bin": records(slice(5, 7), 1),
}
ARCHIVE = packed(PARTS, "cifar-10-batches-bin")
TINY = CifarSet(
    name="tiny",
    archive="cifar-10-binary.tar.gz",
    sha256=hashlib.sha256(ARCHIVE).hexdigest(),
    folder="cifar-10-batches-bin",
    parts={file: hashlib.sha256(content).hexdigest() for file, content in PARTS.items()},
    label_bytes=1,
    classes=("a", "b", "c"),
)


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of data, an own cache, and no network."""

    def refuse(address: str, timeout: float) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VITREOUS_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def lay(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)


def check(source: ArraySource, name: str = "tiny") -> None:
    np.testing.assert_array_equal(source.images, PLANES.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(source.labels, FINE)
    assert list(source.splits) == ["train"] * 5 + ["test"] * 2
    assert (source.describe(4), source.describe(6)) == (f"{name} train[4]", f"{name} test[1]")
    assert np.asarray(source.image(0)).shape == (32, 32, 3)


@pytest.mark.parametrize("where", ["", "tiny"])
def test_archive_is_read_where_it_lies_and_nothing_is_unpacked(data: Path, where: str) -> None:
    lay(data / where, {TINY.archive: ARCHIVE})
    check(open_cifar(TINY))
    assert [path.name for path in (data / where).iterdir()] == [TINY.archive]


@pytest.mark.parametrize("where", ["cifar-10-batches-bin", "tiny/cifar-10-batches-bin", "tiny"])
def test_unpacked_folder_is_read_too(data: Path, where: str) -> None:
    lay(data / where, PARTS)
    check(open_cifar(TINY))


def test_fine_labels_of_two_are_the_classes(data: Path) -> None:
    parts = {"train.bin": records(slice(0, 5), 2), "test.bin": records(slice(5, 7), 2)}
    archive = packed(parts, "cifar-100-binary")
    tiny = replace(
        CIFAR100,
        sha256=hashlib.sha256(archive).hexdigest(),
        parts={file: hashlib.sha256(content).hexdigest() for file, content in parts.items()},
    )
    lay(data, {tiny.archive: archive})
    source = open_cifar(tiny)
    check(source, "cifar100")
    assert [source.classes[label] for label in source.labels[:3]] == ["apple", "aquarium_fish", "baby"]


def test_pickled_version_is_never_opened_and_the_right_file_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    lay(data, {"cifar-10-python.tar.gz": b"\x80\x04."})
    (data / "tiny" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(DataNotFoundError) as caught:
        open_cifar(TINY)
    cache = cache_folder() / "tiny"
    assert str(caught.value) == (
        f"data.source=tiny: not in {data / 'tiny'} (cifar-10-batches-py is a pickle, which is never opened; get "
        f"cifar-10-binary.tar.gz), {data} (cifar-10-python.tar.gz is a pickle, which is never opened; get "
        f"cifar-10-binary.tar.gz), {cache} (not there), /usr/share/datasets/tiny (not there), and "
        "https://www.cs.toronto.edu/~kriz was not reached (no network here); put cifar-10-binary.tar.gz into a folder "
        "and set VITREOUS_DATA to it"
    )


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "no cifar-10-binary.tar.gz"),
        ({TINY.archive: ARCHIVE[:-9]}, f"{TINY.archive}: not the file tiny is known by; set VITREOUS_DATA to a copy"),
        ({**PARTS, "test_batch.bin": PARTS["data_batch_2.bin"]},
         "its test_batch.bin is not tiny's; put cifar-10-binary.tar.gz there"),
        ({"data_batch_1.bin": PARTS["data_batch_1.bin"]}, "[Errno 2] No such file or directory: "),
    ],
)  # fmt: skip
def test_what_is_not_the_set_is_passed_over_with_the_reason(
    data: Path, contents: dict[str, bytes], reason: str
) -> None:
    lay(data, contents)
    with pytest.raises(DataNotFoundError) as caught:
        open_cifar(TINY)
    assert f", {data} ({reason}" in str(caught.value)


class Reply(io.BytesIO):
    pass


def test_fetched_archive_is_checked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(address: str, timeout: float) -> Reply:
        asked.append(address)
        return Reply(ARCHIVE)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    check(open_cifar(TINY))
    check(open_cifar(TINY))
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert (cache_folder() / "tiny" / TINY.archive).read_bytes() == ARCHIVE


def test_fetched_archive_that_is_another_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda address, timeout: Reply(b"<html>moved</html>"))
    with pytest.raises(DataError) as caught:
        open_cifar(TINY)
    assert str(caught.value) == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz: not the file tiny is known by; "
        "set VITREOUS_DATA to a copy"
    )
    assert not cache_folder().exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no gzip", "x: cannot be unpacked (not a gzip file); fetch the file again"),
     (packed({"data_batch_1.bin": b""}, "y"), "x: holds no data_batch_2.bin; fetch the file again"),
     (ARCHIVE[:4000], "x: cannot be unpacked (")],
)  # fmt: skip
def test_archive_that_cannot_be_unpacked_is_refused(content: bytes, message: str) -> None:
    wanted = replace(TINY, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError) as caught:
        cifar._unpack(wanted, content, "x")
    assert str(caught.value).startswith(message)


def test_both_official_sets_are_known_by_name() -> None:
    assert (len(CIFAR10.classes), CIFAR10.classes[3], len(CIFAR10.parts)) == (10, "cat", 6)
    assert (len(CIFAR100.classes), CIFAR100.classes[99], len(CIFAR100.parts)) == (100, "worm", 2)
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)
    assert CIFAR100.python_files == ("cifar-100-python.tar.gz", "cifar-100-python")
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DataNotFoundError, match=rf"^data\.source={name}: not in "):
            open_source(name)
