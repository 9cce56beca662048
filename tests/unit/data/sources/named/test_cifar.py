import hashlib
import io
import pickle
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.sources.builders import error_of, tar, write_files

from vitreous.data.sources import ArraySource, open_source
from vitreous.data.sources.named.cifar import CIFAR10, CIFAR100, CifarSet, open_cifar
from vitreous.errors import DataNotFoundError
from vitreous.paths import cache_folder

PLANES = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
COARSE = np.array([9, 8, 7, 6, 5, 4, 3], np.uint8)
FINE = np.array([0, 1, 2, 1, 0, 2, 1], np.uint8)


def records(rows: slice, label_bytes: int) -> bytes:
    labels = np.stack([COARSE, FINE], axis=1)[rows, 2 - label_bytes :]
    return np.concatenate([labels, PLANES[rows].reshape(-1, 3072)], axis=1).tobytes()


def packed(contents: dict[str, bytes], folder: str) -> bytes:
    """Return a gzipped archive of these files and two others."""
    entries = {**contents, "readme.html": b"<html>", "../escape.bin": b"no"}
    return tar([(f"{folder}/{name}", content) for name, content in entries.items()], "w:gz")


def sha256_of(contents: dict[str, bytes]) -> dict[str, str]:
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}


FILES = {
    "data_batch_1.bin": records(slice(0, 3), 1),
    "data_batch_2.bin": records(slice(3, 5), 1),
    "test_batch.bin": records(slice(5, 7), 1),
}
ARCHIVE = packed(FILES, "cifar-10-batches-bin")
TINY = CifarSet(
    name="tiny",
    archive="cifar-10-binary.tar.gz",
    sha256=hashlib.sha256(ARCHIVE).hexdigest(),
    folder="cifar-10-batches-bin",
    files=sha256_of(FILES),
    label_bytes=1,
    classes=("a", "b", "c"),
)


pytestmark = pytest.mark.usefixtures("data_folder")


def check(source: ArraySource, name: str = "tiny") -> None:
    np.testing.assert_array_equal(source.images, PLANES.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(source.labels, FINE)
    assert list(source.splits) == ["train"] * 5 + ["test"] * 2
    assert (source.describe(4), source.describe(6)) == (f"{name} train[4]", f"{name} test[1]")
    assert np.asarray(source.image(0)).shape == (32, 32, 3)


@pytest.mark.parametrize("where", ["", "tiny"])
def test_archive_is_read_in_place_and_nothing_is_unpacked(data_folder: Path, where: str) -> None:
    write_files(data_folder / where, {TINY.archive: ARCHIVE})
    check(open_cifar(TINY))
    assert [path.name for path in (data_folder / where).iterdir()] == [TINY.archive]


@pytest.mark.parametrize("where", ["cifar-10-batches-bin", "tiny/cifar-10-batches-bin", "tiny"])
def test_unpacked_folder_is_read_too(data_folder: Path, where: str) -> None:
    write_files(data_folder / where, FILES)
    check(open_cifar(TINY))


def test_fine_labels_of_cifar100_are_the_classes(data_folder: Path) -> None:
    files = {"train.bin": records(slice(0, 5), 2), "test.bin": records(slice(5, 7), 2)}
    archive = packed(files, "cifar-100-binary")
    tiny = replace(
        CIFAR100,
        sha256=hashlib.sha256(archive).hexdigest(),
        files=sha256_of(files),
    )
    write_files(data_folder, {tiny.archive: archive})
    source = open_cifar(tiny)
    check(source, "cifar100")
    assert [source.classes[label] for label in source.labels[:3]] == ["apple", "aquarium_fish", "baby"]


def test_pickled_version_is_never_opened_and_the_right_file_is_named(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    write_files(data_folder, {"cifar-10-python.tar.gz": b"\x80\x04."})
    (data_folder / "tiny" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(DataNotFoundError) as caught:
        open_cifar(TINY)
    never = "is a pickle file, which is never opened because it could run code; download cifar-10-binary.tar.gz"
    assert str(caught.value) == (
        f"data.source=tiny: not on this machine ({data_folder / 'tiny'}: cifar-10-batches-py {never}, "
        f"{data_folder}: cifar-10-python.tar.gz {never}, {cache_folder() / 'tiny'}: no such folder, "
        "/usr/share/datasets/tiny: no such folder), and https://www.cs.toronto.edu/~kriz could not be reached "
        "(no network here); put cifar-10-binary.tar.gz into a folder and set the environment variable VITREOUS_DATA "
        "to it"
    )


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "no cifar-10-binary.tar.gz"),
        ({TINY.archive: ARCHIVE[:-9]}, f"{TINY.archive}: not the official file of tiny (its SHA-256 differs); set "),
        ({**FILES, "test_batch.bin": FILES["data_batch_2.bin"]},
         "test_batch.bin: not the official file of tiny (its SHA-256 differs); set VITREOUS_DATA to a folder with "),
        ({"data_batch_1.bin": FILES["data_batch_1.bin"]}, "[Errno 2] No such file or directory: "),
    ],
)  # fmt: skip
def test_folder_that_does_not_hold_the_set_is_skipped_with_a_reason(
    data_folder: Path, contents: dict[str, bytes], reason: str
) -> None:
    write_files(data_folder, contents)
    with pytest.raises(DataNotFoundError) as caught:
        open_cifar(TINY)
    assert f", {data_folder}: {reason}" in str(caught.value)


def test_downloaded_archive_is_checked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        requested.append(address)
        return io.BytesIO(ARCHIVE)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    check(open_cifar(TINY))
    check(open_cifar(TINY))
    assert requested == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert (cache_folder() / "tiny" / TINY.archive).read_bytes() == ARCHIVE


def test_downloaded_archive_with_another_checksum_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda address, timeout: io.BytesIO(b"<html>moved</html>"))
    assert error_of(lambda: open_cifar(TINY)) == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz: not the official file of tiny "
        "(its SHA-256 differs); set VITREOUS_DATA to a folder with the official files"
    )
    assert not cache_folder().exists()


def test_cifar10_and_cifar100_are_opened_by_name() -> None:
    assert (len(CIFAR10.classes), CIFAR10.classes[3], len(CIFAR10.files)) == (10, "cat", 6)
    assert (len(CIFAR100.classes), CIFAR100.classes[99], len(CIFAR100.files)) == (100, "worm", 2)
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)
    assert CIFAR100.python_files == ("cifar-100-python.tar.gz", "cifar-100-python")
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DataNotFoundError, match=rf"^data\.source={name}: not on this machine \("):
            open_source(name)
