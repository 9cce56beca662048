"""Grids divided into rectangles whose sides differ by at most one patch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitreous.errors import ConfigError
from vitreous.use.explain.removal.super_tokens import super_tokens


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), data=st.data())
def test_super_tokens_are_rectangles_of_nearly_equal_sides(rows: int, columns: int, data: st.DataObject) -> None:
    cells = data.draw(st.tuples(st.integers(1, rows), st.integers(1, columns)))
    grid = super_tokens((rows, columns), cells).view(rows, columns)
    down, across = grid[:, 0] // cells[1], grid[0] % cells[1]
    assert torch.equal(grid, down[:, None] * cells[1] + across)
    for side, count in ((down, cells[0]), (across, cells[1])):
        assert torch.equal(side, side.sort().values)
        sizes = side.bincount(minlength=count)
        assert len(sizes) == count
        assert int(sizes.min()) >= 1
        assert int(sizes.max() - sizes.min()) <= 1


def test_seven_by_five_patches_in_four_by_two() -> None:
    assert super_tokens((7, 5), (4, 2)).view(7, 5).tolist() == [
        [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 3, 3], [2, 2, 2, 3, 3], [4, 4, 4, 5, 5], [4, 4, 4, 5, 5],
        [6, 6, 6, 7, 7],
    ]  # fmt: skip


@pytest.mark.parametrize("cells", [(3, 2), (1, 6), (0, 1), (2, -1)])
def test_more_super_tokens_than_patches_are_refused(cells: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^cells={cells[0]}x{cells[1]}: cannot divide 2x5 patches; use 1 to 2 rows"):
        super_tokens((2, 5), cells)
