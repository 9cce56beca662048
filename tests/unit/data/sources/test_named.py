import gzip
import hashlib
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitreous.data.sources import ArraySource, idx, known_sets, official, open_source
from vitreous.data.sources.mnist import IdxSet, open_idx_set
from vitreous.data.sources.official import cache_folder, places
from vitreous.errors import DataError, DataNotFoundError


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


@pytest.fixture(autouse=True)
def no_network_and_an_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(address: str, timeout: float) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VITREOUS_DATA", raising=False)


def lay(folder: Path, contents: dict[str, bytes], zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        path = folder / (f"{file}.gz" if zipped else file)
        path.write_bytes(gzip.compress(content) if zipped else content)


def check_tiny(source: ArraySource) -> None:
    np.testing.assert_array_equal(source.images, np.concatenate([TRAIN, TEST]))
    np.testing.assert_array_equal(source.labels, [0, 1, 2, 0, 1, 2, 0, 2, 1, 0])
    assert list(source.splits) == ["train"] * 7 + ["test"] * 3
    assert (source.describe(6), source.describe(8)) == ("tiny train[6]", "tiny test[1]")


def test_digits_reach_from_black_to_white_and_ask_for_a_quarter() -> None:
    source = open_source("digits")
    assert isinstance(source, ArraySource)
    assert (source.images.shape, source.images.min(), source.images.max()) == ((1797, 8, 8), 0, 255)
    assert (source.test_ratio, set(source.splits), source.classes[7]) == (0.25, {""}, "7")
    assert source.describe(17) == "digits[17]"
    assert source.content(3) == source.images[3].tobytes()
    np.testing.assert_array_equal(np.asarray(source.image(3)), source.images[3])


def test_known_sets_are_named() -> None:
    assert known_sets() == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["named", "own", "cache"])
def test_set_is_found_in_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, zipped: bool) -> None:
    folder = {"named": tmp_path / "data" / "tiny", "own": tmp_path / "data", "cache": cache_folder() / "tiny"}[where]
    lay(folder, CONTENTS, zipped)
    if where != "cache":
        monkeypatch.setenv("VITREOUS_DATA", str(tmp_path / "data"))
    check_tiny(open_idx_set(TINY))


def test_look_alike_files_are_not_taken_for_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_DATA", str(tmp_path / "data"))
    lay(tmp_path / "data", {**CONTENTS, "t10k-images-idx3-ubyte": as_idx(TEST[::-1].copy())})
    with pytest.raises(DataNotFoundError, match=r"its t10k-images-idx3-ubyte\.gz is not tiny's"):
        open_idx_set(TINY)
    lay(cache_folder() / "tiny", CONTENTS)
    check_tiny(open_idx_set(TINY))


def test_absent_set_without_network_names_places_address_and_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITREOUS_DATA", str(tmp_path / "data"))
    lay(tmp_path / "data", {"train-images-idx3-ubyte": CONTENTS["train-images-idx3-ubyte"]})
    with pytest.raises(DataNotFoundError) as caught:
        open_idx_set(TINY)
    data = tmp_path / "data"
    assert str(caught.value) == (
        f"data.source=tiny: not in {data / 'tiny'} (not there), {data} (no train-labels-idx1-ubyte.gz), "
        f"{tmp_path / 'cache' / 'vitreous' / 'tiny'} (not there), /usr/share/datasets/tiny (not there), "
        "and https://example.invalid/tiny was not reached (no network here); put train-images-idx3-ubyte.gz, "
        "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into a folder "
        "and set VITREOUS_DATA to it"
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
    asked: list[str] = []

    def answer(address: str, timeout: float) -> Reply:
        asked.append(address)
        return Reply(gzip.compress(contents[address.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def test_fetched_set_is_kept_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, CONTENTS)
    check_tiny(open_idx_set(TINY))
    check_tiny(open_idx_set(TINY))
    assert asked == [f"https://example.invalid/tiny/{file}.gz" for file in CONTENTS]


def test_fetched_file_with_another_checksum_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {**CONTENTS, "train-labels-idx1-ubyte": b"something else"})
    with pytest.raises(DataError) as caught:
        open_idx_set(TINY)
    assert str(caught.value) == (
        "https://example.invalid/tiny/train-labels-idx1-ubyte.gz: not the file tiny is known by; "
        "set VITREOUS_DATA to a copy"
    )
    assert not cache_folder().exists()


def test_cache_that_cannot_be_written_is_a_note_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(monkeypatch, CONTENTS)
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = open_idx_set(TINY)
    check_tiny(source)
    assert len(source.notes) == 1
    assert source.notes[0].startswith(f"{cache_folder() / 'tiny'}: the fetched files could not be kept (")


@pytest.mark.parametrize(("platform", "tail"), [("darwin", "Library/Caches/vitreous"), ("linux", ".cache/vitreous")])
def test_cache_stands_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, tail: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(official.sys, "platform", platform)
    assert cache_folder() == Path.home() / tail
    assert places("mnist") == [Path.home() / tail / "mnist", Path("/usr/share/datasets/mnist")]


def test_cache_stands_in_local_app_data_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(official.sys, "platform", "win32")
    assert cache_folder() == tmp_path / "vitreous" / "Cache"


def test_shared_mnist_is_the_official_set(shared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_DATA", str(shared("mnist").parent))
    source = open_source("mnist")
    assert (len(source), list(source.labels[:5]), source.describe(60_001)) == (70_000, [5, 0, 4, 1, 9], "mnist test[1]")


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist is absent")
def test_system_fashion_mnist_is_the_official_set() -> None:
    source = open_source("fashion-mnist")
    assert source.classes[source.labels[0]] == "ankle boot"
    np.testing.assert_array_equal(np.bincount(source.labels[source.splits == "test"]), [1000] * 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: starts with nothing; must be an idx file of bytes, 00000801…04"),
        (b"\x00\x00\x0d\x01\x00", "file: starts with 00000d01; must be an idx file of bytes"),
        (b"\x00\x00\x08\x05" + bytes(20), "file: starts with 00000805; must be an idx file of bytes"),
        (b"\x00\x00\x08\x00", "file: starts with 00000800; must be an idx file of bytes"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x07", "file: ends within its header after 8 bytes; fetch the file again"),
        (as_idx(TRAIN)[:-1], "file: header says 7x5x4 = 140 bytes, 139 follow; fetch the file again"),
        (as_idx(TRAIN) + b"xx", "file: header says 7x5x4 = 140 bytes, 142 follow; fetch the file again"),
        (
            b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff",
            "file: header says 4294967295x4294967295 = 18446744065119617025 bytes, 0 follow; fetch the file again",
        ),
    ],
)
def test_hostile_idx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        idx.parse(content, "file")
    assert str(caught.value).startswith(message)


def test_idx_array_comes_back_whole() -> None:
    np.testing.assert_array_equal(idx.parse(as_idx(TRAIN), "file"), TRAIN)


def test_gzip_bomb_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    assert idx.unpack(gzip.compress(bytes(1000)), "file") == bytes(1000)
    with pytest.raises(DataError) as caught:
        idx.unpack(gzip.compress(bytes(1001)), "file")
    assert str(caught.value) == "file: unpacks to more than 1,000 bytes; is it an idx file?"


def test_damaged_gzip_is_refused() -> None:
    zipped = gzip.compress(as_idx(TRAIN))
    with pytest.raises(
        DataError, match=r"^file: gzip data ends early, after \d+ unpacked bytes; fetch the file again$"
    ):
        idx.unpack(zipped[:-4], "file")
    with pytest.raises(DataError, match=r"^file: damaged gzip data \(Error -3 .*\); fetch the file again$"):
        idx.unpack(zipped[:20] + b"\xff\xff\xff\xff" + zipped[24:], "file")


def test_arrays_describe_their_place_and_header() -> None:
    source = ArraySource(
        name="odd", classes=["a", "b"], images=np.zeros((3, 5, 9, 3), np.uint8),
        labels=np.array([0, 1, 0]), splits=["test", "train", "test"],
    )  # fmt: skip
    assert [source.describe(i) for i in range(3)] == ["odd test[0]", "odd train[0]", "odd test[1]"]
    header = source.header(1, source.content(1))
    assert (header.height, header.width, header.is_gray) == (5, 9, False)
