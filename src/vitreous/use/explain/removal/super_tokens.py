"""Grid of patches -> super-tokens: the same grid in fewer, larger rectangles of patches."""

import torch
from jaxtyping import Int64
from torch import Tensor

from vitreous.errors import ConfigError


def super_tokens(grid_size: tuple[int, int], cells: tuple[int, int]) -> Int64[Tensor, " patches"]:
    """Return the number of the super-token, of `cells` rows and columns of them, for each patch; both row by row.

    If the rows or columns cannot be divided equally, their numbers in the super-tokens differ by at most one.

    Raises:
        ConfigError: There are more rows or columns of super-tokens than of patches, or less than one.
    """
    if any(not 1 <= count <= side for count, side in zip(cells, grid_size, strict=True)):
        rows, columns = grid_size
        raise ConfigError(
            f"cells={cells[0]}x{cells[1]}: cannot divide {rows}x{columns} patches; use 1 to {rows} rows and "
            f"1 to {columns} columns"
        )
    row, column = (torch.arange(side) * count // side for side, count in zip(grid_size, cells, strict=True))
    return (row[:, None] * cells[1] + column).flatten()
