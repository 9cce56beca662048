import gzip
import hashlib
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.data.sources.builders import error_of, write_files

from vitreous import paths
from vitreous.data.sources import ArraySource, known_sets, open_source
from vitreous.data.sources.named import idx
from vitreous.data.sources.named.mnist import IdxSet, open_idx_set
from vitreous.data.sources.named.official import places
from vitreous.errors import DataError, DataNotFoundError
from vitreous.paths import cache_folder


def as_idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


TRAIN = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (3, 5, 4), dtype=np.uint8)
CONTENTS = {
    "train-images-idx3-ubyte": as_idx(TRAIN),
    "train-labels-idx1-ubyte": as_idx(np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)),
    "t10k-images-idx3-ubyte": as_idx(TEST),
    "t10k-labels-idx1-ubyte": as_idx(np.array([2, 1, 0], np.uint8)),
}
TINY = IdxSet(
    name="tiny",
    address="https://example.invalid/tiny",
    classes=("a", "b", "c"),
    sha256={file: hashlib.sha256(content).hexdigest() for file, content in CONTENTS.items()},
)


pytestmark = pytest.mark.usefixtures("data_folder")


def gzipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{file}.gz": gzip.compress(content) for file, content in contents.items()}


def check_tiny(source: ArraySource) -> None:
    np.testing.assert_array_equal(source.images, np.concatenate([TRAIN, TEST]))
    np.testing.assert_array_equal(source.labels, [0, 1, 2, 0, 1, 2, 0, 2, 1, 0])
    assert list(source.splits) == ["train"] * 7 + ["test"] * 3
    assert (source.describe(6), source.describe(8)) == ("tiny train[6]", "tiny test[1]")


def test_digits_range_from_black_to_white_and_hold_out_a_quarter() -> None:
    source = open_source("digits")
    assert isinstance(source, ArraySource)
    assert (source.images.shape, source.images.min(), source.images.max()) == ((1797, 8, 8), 0, 255)
    assert (source.test_ratio, set(source.splits), source.classes[7]) == (0.25, {""}, "7")
    assert source.describe(17) == "digits[17]"
    assert source.content(3) == source.images[3].tobytes()
    np.testing.assert_array_equal(np.asarray(source.image(3)), source.images[3])


def test_names_of_known_sets() -> None:
    assert known_sets() == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize("is_gzipped", [True, False])
@pytest.mark.parametrize("where", ["named", "own", "cache"])
def test_set_is_found_in_every_folder(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, is_gzipped: bool
) -> None:
    folder = {"named": data_folder / "tiny", "own": data_folder, "cache": cache_folder() / "tiny"}[where]
    write_files(folder, gzipped(CONTENTS) if is_gzipped else CONTENTS)
    if where == "cache":
        monkeypatch.delenv("VITREOUS_DATA")
    check_tiny(open_idx_set(TINY))


def test_set_with_the_same_file_names_is_not_taken_for_the_right_one(data_folder: Path) -> None:
    write_files(data_folder, gzipped({**CONTENTS, "t10k-images-idx3-ubyte": as_idx(TEST[::-1].copy())}))
    reason = r"t10k-images-idx3-ubyte\.gz: not the official file of tiny \(its SHA-256 differs\)"
    with pytest.raises(DataNotFoundError, match=reason):
        open_idx_set(TINY)
    write_files(cache_folder() / "tiny", gzipped(CONTENTS))
    check_tiny(open_idx_set(TINY))


def test_missing_set_without_network_names_folders_address_and_variable(data_folder: Path, tmp_path: Path) -> None:
    write_files(data_folder, gzipped({"train-images-idx3-ubyte": CONTENTS["train-images-idx3-ubyte"]}))
    with pytest.raises(DataNotFoundError) as caught:
        open_idx_set(TINY)
    assert str(caught.value) == (
        f"data.source=tiny: not on this machine ({data_folder / 'tiny'}: no such folder, "
        f"{data_folder}: no train-labels-idx1-ubyte.gz, {tmp_path / 'cache' / 'vitreous' / 'tiny'}: no such folder, "
        "/usr/share/datasets/tiny: no such folder), and https://example.invalid/tiny could not be reached "
        "(no network here); put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        "t10k-labels-idx1-ubyte.gz into a folder and set the environment variable VITREOUS_DATA to it"
    )


class Reply:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, limit: int) -> bytes:
        return self.content[:limit]

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def serve(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> list[str]:
    requested: list[str] = []

    def answer(address: str, timeout: float) -> Reply:
        requested.append(address)
        return Reply(gzip.compress(contents[address.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return requested


def test_downloaded_set_is_kept_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = serve(monkeypatch, CONTENTS)
    check_tiny(open_idx_set(TINY))
    check_tiny(open_idx_set(TINY))
    assert requested == [f"https://example.invalid/tiny/{file}.gz" for file in CONTENTS]


def test_downloaded_file_with_another_checksum_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {**CONTENTS, "train-labels-idx1-ubyte": b"something else"})
    assert error_of(lambda: open_idx_set(TINY)) == (
        "https://example.invalid/tiny/train-labels-idx1-ubyte.gz: not the official file of tiny "
        "(its SHA-256 differs); set VITREOUS_DATA to a folder with the official files"
    )
    assert not cache_folder().exists()


def test_cache_that_cannot_be_written_is_a_note_and_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(monkeypatch, CONTENTS)
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = open_idx_set(TINY)
    check_tiny(source)
    assert len(source.notes) == 1
    assert source.notes[0].startswith(f"{cache_folder() / 'tiny'}: downloaded files could not be stored (")
    assert source.notes[0].endswith("); the next run downloads them again")


@pytest.mark.parametrize(("platform", "tail"), [("darwin", "Library/Caches/vitreous"), ("linux", ".cache/vitreous")])
def test_cache_is_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch, platform: str, tail: str) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("VITREOUS_DATA")
    monkeypatch.setattr(paths.sys, "platform", platform)
    assert cache_folder() == Path.home() / tail
    assert places("mnist") == [Path.home() / tail / "mnist", Path("/usr/share/datasets/mnist")]


def test_cache_is_in_local_app_data_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(paths.sys, "platform", "win32")
    assert cache_folder() == tmp_path / "vitreous" / "Cache"


def test_shared_mnist_is_the_official_set(shared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_DATA", str(shared("mnist").parent))
    source = open_source("mnist")
    assert (len(source), list(source.labels[:5]), source.describe(60_001)) == (70_000, [5, 0, 4, 1, 9], "mnist test[1]")


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)
def test_system_fashion_mnist_is_the_official_set() -> None:
    source = open_source("fashion-mnist")
    assert source.classes[source.labels[0]] == "ankle boot"
    np.testing.assert_array_equal(np.bincount(source.labels[source.splits == "test"]), [1000] * 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: starts with nothing, but an idx file of unsigned bytes starts with 00000801 to 00000804; check"),
        (b"\x00\x00\x0d\x01\x00", "file: starts with 00000d01, but an idx file of unsigned bytes starts with"),
        (b"\x00\x00\x08\x05" + bytes(20), "file: starts with 00000805, but an idx file of unsigned bytes starts with"),
        (b"\x00\x00\x08\x00", "file: starts with 00000800, but an idx file of unsigned bytes starts with"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x07", "file: ends within its header, after 8 bytes; download the file again"),
        (as_idx(TRAIN)[:-1], "file: the header declares 7x5x4 = 140 bytes, but 139 follow; download the"),
        (as_idx(TRAIN) + b"xx", "file: the header declares 7x5x4 = 140 bytes, but 142 follow; download"),
        (
            b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff",
            "file: the header declares 4294967295x4294967295 = 18,446,744,065,119,617,025 bytes, but 0 follow; down",
        ),
    ],
)
def test_invalid_idx_file_is_refused(content: bytes, message: str) -> None:
    assert error_of(lambda: idx.parse(content, "file")).startswith(message)


def test_idx_array_is_read_back() -> None:
    np.testing.assert_array_equal(idx.parse(as_idx(TRAIN), "file"), TRAIN)


def test_gzip_bomb_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    assert idx.unpack(gzip.compress(bytes(1000)), "file") == bytes(1000)
    assert error_of(lambda: idx.unpack(gzip.compress(bytes(1001)), "file")) == (
        "file: unpacks to more than 1,000 bytes; check that it is an idx file"
    )


def test_damaged_gzip_is_refused() -> None:
    zipped = gzip.compress(as_idx(TRAIN))
    with pytest.raises(DataError, match=r"^file: gzip data ends early, after \d+ unpacked bytes; download it again$"):
        idx.unpack(zipped[:-4], "file")
    with pytest.raises(DataError, match=r"^file: damaged gzip data \(Error -3 .*\); download the file again$"):
        idx.unpack(zipped[:20] + b"\xff\xff\xff\xff" + zipped[24:], "file")


def test_samples_of_arrays_have_descriptions_and_headers() -> None:
    source = ArraySource(
        name="odd", classes=["a", "b"], images=np.zeros((3, 5, 9, 3), np.uint8),
        labels=np.array([0, 1, 0]), splits=["test", "train", "test"],
    )  # fmt: skip
    assert [source.describe(i) for i in range(3)] == ["odd test[0]", "odd train[0]", "odd test[1]"]
    header = source.header(1, source.content(1))
    assert (header.height, header.width, header.is_gray) == (5, 9, False)
