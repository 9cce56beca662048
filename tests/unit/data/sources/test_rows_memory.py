"""A table without line breaks is refused before it fills the memory."""

import tracemalloc
from pathlib import Path

import pytest

from vitreous.data.sources import open_source
from vitreous.errors import DataError


@pytest.mark.parametrize(("start", "number"), [(b"path,label\na.png,x\n", 3), (b"", 1)])
@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_line_without_an_end_is_refused_in_bounded_memory(
    start: bytes, number: int, filler: bytes, tmp_path: Path
) -> None:
    path, most_bytes = tmp_path / "table.csv", 200 * 2**20
    with path.open("wb") as file:
        file.write(start)
        if filler == b"\x00":
            file.truncate(most_bytes)  # sparse
        else:
            file.write(filler * most_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"table.csv: line {number}: "):
            open_source(str(path))
        assert tracemalloc.get_traced_memory()[1] < most_bytes / 10
    finally:
        tracemalloc.stop()
