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


def test_rows_come_back_as_they_were_put_in_any_order(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    pixels, wrong = found.take(np.array([4, 1, 1, 0]))
    np.testing.assert_array_equal(pixels, ROWS[[4, 1, 1, 0]])
    assert (wrong, found.damaged, found.num_bytes) == ([], {}, path.stat().st_size)
    assert found.take(np.arange(0))[0].shape == (0, 3, 4, 7)
    assert abs(path.stat().st_size - file_bytes(SHAPE)) < 5000


def test_what_is_taken_is_a_copy(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    found.take(np.array([2]))[0][:] = 0
    np.testing.assert_array_equal(found.take(np.array([2]))[0], ROWS[[2]])


def test_rows_that_were_never_put_read_as_zeros_and_say_why(tmp_path: Path) -> None:
    found = PixelFile(
        write(tmp_path / "x", rows=np.array([0, 2, 3]), damaged={1: "cut: ü", 4: "empty"}), "a key", SHAPE
    )
    pixels, wrong = found.take(np.arange(5))
    assert (wrong, found.damaged) == ([], {1: "cut: ü", 4: "empty"})
    np.testing.assert_array_equal(pixels, np.where(np.isin(np.arange(5), [1, 4])[:, None, None, None], 0, ROWS))


@pytest.mark.parametrize("row", [0, 3])
def test_changed_row_is_told_each_time_and_no_other(path: Path, row: int) -> None:
    content = bytearray(path.read_bytes())
    content[row * ROW_BYTES + 17] ^= 1
    path.write_bytes(content)
    found = PixelFile(path, "a key", SHAPE)
    for _ in range(2):
        assert found.take(np.array([2, row, 1, row]))[1] == [1, 3]


def test_any_changed_byte_after_the_rows_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(5 * ROW_BYTES, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            PixelFile(path, "a key", SHAPE)


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 5 * ROW_BYTES, -1])
def test_cut_file_is_refused_with_its_size(path: Path, kept: int) -> None:
    content = path.read_bytes()[:kept]
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        PixelFile(path, "a key", SHAPE)
    rule = f"is no whole file of [5, 3, 4, 7] pixels ({len(content):,} bytes); delete it"
    assert str(caught.value) == f"{path}: {rule}"


def test_file_of_another_shape_or_key_is_refused(path: Path) -> None:
    for key, shape in (("a key", (5, 3, 7, 4)), ("another", SHAPE)):
        with pytest.raises(DamagedFileError, match=r": holds \[5, 3, 4, 7\], not \[5, 3, "):
            PixelFile(path, key, shape)


@pytest.mark.parametrize("damaged", [{9: "beyond the last"}, {-1: "before the first"}])
def test_list_of_damaged_rows_that_are_none_is_refused(tmp_path: Path, damaged: dict[int, str]) -> None:
    path = write(tmp_path / "x", damaged=damaged)
    with pytest.raises(DamagedFileError, match=r"its list of damaged images is none; delete it$"):
        PixelFile(path, "a key", SHAPE)


def test_discarded_file_stays_readable_where_it_is_open(path: Path) -> None:
    found = PixelFile(path, "a key", SHAPE)
    found.discard()
    found.discard()
    assert not path.exists()
    np.testing.assert_array_equal(found.take(np.arange(5))[0], ROWS)
