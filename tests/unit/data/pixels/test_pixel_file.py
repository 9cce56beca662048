import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitreous.data.pixels.pixel_file import PixelFile, PixelWriter, file_bytes
from vitreous.errors import DamagedFileError

SHAPE = (5, 3, 4, 7)
ROWS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
ROW_BYTES = 3 * 4 * 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "some.pixels")


def write(path: Path, *, rows: NDArray[np.int64] | None = None, damaged: dict[int, str] | None = None) -> Path:
    with path.open("wb") as file:
        writer = PixelWriter(file, SHAPE)
        for row in [3, 0, 4, 2, 1] if rows is None else rows:
            writer.put(int(row), ROWS[row])
        writer.finish("a key", damaged or {})
    return path


def test_rows_written_in_any_order_are_read_back(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    pixels, wrong = found.take(np.array([4, 1, 1, 0]))
    np.testing.assert_array_equal(pixels, ROWS[[4, 1, 1, 0]])
    assert (wrong, found.damaged, found.num_bytes) == ([], {}, path.stat().st_size)
    assert found.take(np.arange(0))[0].shape == (0, 3, 4, 7)
    assert abs(path.stat().st_size - file_bytes(SHAPE)) < 5000


def test_taken_rows_are_copies(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    found.take(np.array([2]))[0][:] = 0
    np.testing.assert_array_equal(found.take(np.array([2]))[0], ROWS[[2]])


def test_rows_that_were_never_written_read_as_zeros_with_a_reason(tmp_path: Path) -> None:
    found = PixelFile(
        write(tmp_path / "x", rows=np.array([0, 2, 3]), damaged={1: "cut: ü", 4: "empty"}), "a key", SHAPE
    )
    pixels, wrong = found.take(np.arange(5))
    assert (wrong, found.damaged) == ([], {1: "cut: ü", 4: "empty"})
    np.testing.assert_array_equal(pixels, np.where(np.isin(np.arange(5), [1, 4])[:, None, None, None], 0, ROWS))


@pytest.mark.parametrize("row", [0, 3])
def test_altered_row_is_reported_each_time_and_no_other(path: Path, row: int) -> None:
    content = bytearray(path.read_bytes())
    content[row * ROW_BYTES + 17] ^= 1
    path.write_bytes(content)
    found = PixelFile(path, "a key", SHAPE)
    for _ in range(2):
        assert found.take(np.array([2, row, 1, row]))[1] == [1, 3]


def test_any_altered_byte_after_the_rows_is_an_error(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(5 * ROW_BYTES, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            PixelFile(path, "a key", SHAPE)


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 5 * ROW_BYTES, -1])
def test_truncated_file_is_an_error_with_its_size(path: Path, kept: int) -> None:
    content = path.read_bytes()[:kept]
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        PixelFile(path, "a key", SHAPE)
    rule = f"must be a complete file of [5, 3, 4, 7] pixels, but has {len(content):,} bytes; delete it"
    assert str(caught.value) == f"{path}: {rule}"


def test_file_of_another_shape_or_key_is_an_error(path: Path) -> None:
    for key, shape in (("a key", (5, 3, 7, 4)), ("another", SHAPE)):
        with pytest.raises(DamagedFileError, match=r": holds other images; delete it$"):
            PixelFile(path, key, shape)


@pytest.mark.parametrize("damaged", [{9: "beyond the last"}, {-1: "before the first"}])
def test_invalid_list_of_damaged_rows_is_an_error(tmp_path: Path, damaged: dict[int, str]) -> None:
    path = write(tmp_path / "x", damaged=damaged)
    with pytest.raises(DamagedFileError, match=r"its list of damaged images is invalid; delete it$"):
        PixelFile(path, "a key", SHAPE)


def test_deleted_file_stays_readable_while_it_is_open(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    found.discard()
    found.discard()
    assert not path.exists()
    np.testing.assert_array_equal(found.take(np.arange(5))[0], ROWS)


@pytest.mark.parametrize("kept", [0, ROW_BYTES - 1, 3 * ROW_BYTES, 3 * ROW_BYTES + 5])
def test_rows_that_were_cut_off_while_the_file_is_open_are_reported(tmp_path: Path, kept: int) -> None:
    """The system would end the process if a page was read that is no longer in the file."""
    pages = np.random.default_rng(1).integers(0, 256, (5, 1, 128, 64), dtype=np.uint8)
    path, kept = tmp_path / "some.pixels", kept * pages[0].size // ROW_BYTES
    with path.open("wb") as file:
        writer = PixelWriter(file, pages.shape)
        for row, pixels in enumerate(pages):
            writer.put(row, pixels)
        writer.finish("a key", {})
    found = PixelFile(path, "a key", pages.shape)
    assert found.take(np.arange(5))[1] == []
    os.truncate(path, kept)
    whole = kept // pages[0].size
    for _ in range(2):
        pixels, wrong = found.take(np.array([4, 3, 2, 1, 0]))
        assert wrong == list(range(5 - whole))
        np.testing.assert_array_equal(pixels[5 - whole :], pages[:whole][::-1])
    os.truncate(path, found.num_bytes)
    assert found.take(np.arange(5))[1] == list(range(whole, 5))
