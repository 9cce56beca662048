"""A grid size -> fixed position embeddings, computed from sines and cosines instead of learned."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.model.parts.embedding import unfilled
from vitreous.tensors import Tokens


class FixedTable(nn.Module):
    """A table that is computed from a grid size, in float64, and not saved with the weights.

    The table for the given grid size is computed once and kept.
    """

    table: Tensor

    def __init__(self, grid_size: tuple[int, int]) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.register_buffer("table", self.compute(grid_size).to(torch.get_default_dtype()), persistent=False)

    @abstractmethod
    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Return the table for a grid size: float64, one row per cell, on torch's default device."""

    def dtype_for(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the table for a module of this dtype."""
        return dtype

    def table_for(self, grid_size: tuple[int, int] | None) -> Tensor:
        """Return the table for a grid size, in the dtype and on the device of the kept one; None for the kept one."""
        if grid_size is None or grid_size == self.grid_size:
            return self.table
        return self.compute(grid_size).to(self.table)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FixedTable":
        # PyTorch calls this for every move and cast of a module. Compute the table again: it is not saved, so loading
        # weights would not fill it after the meta device, and a cast to float64 would keep the error of float32.
        super()._apply(fn, recurse)
        if not self.table.is_meta:
            with torch.device("cpu"):
                table = self.compute(self.grid_size)
            self.table = table.to(self.table.device, self.dtype_for(self.table.dtype))
        return self

    def extra_repr(self) -> str:
        """Return the grid size, for the printed form of the module."""
        return "{}x{}".format(*self.grid_size)


class FixedPosition(FixedTable):
    """Add one row of the table to each patch token. There are no weights to learn or save."""

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Add the table.

        There is one token per cell, without prefix tokens; by default, for the grid of the kept table.

        Raises:
            ShapeError: The tokens do not fill the grid.
        """
        rows, columns = grid_size or self.grid_size
        if tokens.shape[1] != rows * columns:
            raise unfilled(tokens, (rows, columns))
        return tokens + self.table_for(grid_size)


class SinusoidalPosition(FixedPosition):
    """Sines and cosines of the number of the patch, counted row by row."""

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int) -> None:
        self.embed_dim = embed_dim
        super().__init__(grid_size)

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Return `sinusoid`, one row per cell."""
        return sinusoid(grid_size[0] * grid_size[1], self.embed_dim)


class SinCosPosition(FixedPosition):
    """Sines and cosines of the row and the column of the patch.

    `embed_dim` is a multiple of 4. `variant` chooses the wavelengths of `mae` or of `big_vision`; see `sincos2d`.
    """

    def __init__(
        self, *, grid_size: tuple[int, int], embed_dim: int, variant: Literal["mae", "big_vision"] = "mae"
    ) -> None:
        self.embed_dim = embed_dim
        self.variant: Literal["mae", "big_vision"] = variant
        super().__init__(grid_size)

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Return `sincos2d`, one row per cell."""
        return sincos2d(grid_size, self.embed_dim, variant=self.variant)


class NoPosition(nn.Module):
    """Add nothing, for models in which attention gets positions from rotations or a bias, or not at all."""

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Return the tokens unchanged."""
        return tokens


def sinusoid(num_tokens: int, embed_dim: int) -> Float[Tensor, "tokens embed_dim"]:
    """Return sines in the even columns and cosines in the odd ones, with wavelengths from 2 pi to 10000 * 2 pi tokens.

    Row p is the embedding of token p, counted from 0.

    Returns:
        `[p, 2i] = sin(p / 10000^(2i/d))`, `[p, 2i + 1] = cos(p / 10000^(2i/d))`, float64.

    Source:
        Vaswani et al. 2017, section 3.5 (1706.03762). The paper does not define odd widths; here they end with a sine.
    """
    columns = torch.arange(embed_dim, dtype=torch.float64)
    even = columns - columns % 2
    angles = torch.arange(num_tokens, dtype=torch.float64)[:, None] / 10000 ** (even / embed_dim)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def sincos2d(
    grid_size: tuple[int, int], embed_dim: int, *, variant: Literal["mae", "big_vision"] = "mae"
) -> Float[Tensor, "tokens embed_dim"]:
    """Return a table with a row for each cell: sines and cosines of its column, then sines and cosines of its row.

    Args:
        grid_size: Rows and columns.
        embed_dim: Width d of the table, a multiple of 4.
        variant: There are q = d/4 wavelengths, i = 0 to q - 1. In `mae` the i-th is 2 pi * 10000^(i/q), in `big_vision`
            2 pi * 10000^(i/(q - 1)); only the latter reach 2 pi * 10000.

    Returns:
        `[rows * columns, d]`, float64; the cells row by row.

    Source:
        He et al. 2022, MAE (2111.06377), `util/pos_embed.py`; Beyer et al. 2022 (2205.01580), `posemb_sincos_2d`.
    """
    quarter = embed_dim // 4
    steps = quarter if variant == "mae" else max(1, quarter - 1)
    frequencies = 10000 ** -(torch.arange(quarter, dtype=torch.float64) / steps)
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid_size)
    rows, columns = rows[:, None].expand(*grid_size, quarter), columns.expand(*grid_size, quarter)
    return rearrange(torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], -1), "h w d -> (h w) d")
