"""Tokens -> tokens that know their place: a learned grid, or fixed sines and cosines, added to each."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ShapeError
from vitreous.model.config.model_config import Interpolation
from vitreous.tensors import Tokens

PositionGrid = Float[Tensor, "height width embed_dim"]
"""One embedding per cell of the patch grid."""


class LearnedPosition(nn.Module):
    """Add one learned embedding to each patch token.

    The embeddings are kept as a grid, `[height, width, embed_dim]`: its shape is in the weights, so that resizing never
    has to guess it. The class token's position lives with the class token, in `prefix.py`.

    Args:
        grid_size: Patches down and across.
        embed_dim: Width of a token.
        interpolation: Whose way of coming to another grid, where `forward` is given one.
    """

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int, interpolation: Interpolation = "timm") -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(*grid_size, embed_dim))
        self.interpolation: Interpolation = interpolation

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Add the embeddings, row by row.

        Args:
            tokens: One per cell.
            grid_size: Rows and columns of the tokens where they are not those of the grid, which is then resized.

        Raises:
            ShapeError: The tokens do not fill the grid.
        """
        grid = self.grid if grid_size is None else resize_grid(self.grid, grid_size, self.interpolation)
        _check_count(tokens, grid.shape[0], grid.shape[1])
        return tokens + rearrange(grid, "h w d -> (h w) d")


class FixedTable(nn.Module):
    """Numbers that follow from a grid's size: computed in float64, kept for one size, never saved.

    Args:
        grid_size: Patches down and across to keep the table for.
    """

    table: Tensor

    def __init__(self, grid_size: tuple[int, int]) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.register_buffer("table", self.compute(grid_size).to(torch.get_default_dtype()), persistent=False)

    @abstractmethod
    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """The table for a grid, float64, one row per cell, on torch's default device."""

    def dtype_for(self, dtype: torch.dtype) -> torch.dtype:
        """What the table is kept in where the module is of this dtype."""
        return dtype

    def table_for(self, grid_size: tuple[int, int] | None) -> Tensor:
        """The table kept, or one computed for another grid; in its dtype and on its device."""
        if grid_size is None or grid_size == self.grid_size:
            return self.table
        return self.compute(grid_size).to(self.table)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FixedTable":
        # Every move of a module passes here. The table is not in the weights, so nobody else would fill it after the
        # meta device, and a cast float32 table would be a rounded float64 one: compute it anew where it arrives.
        super()._apply(fn, recurse)
        if not self.table.is_meta:
            with torch.device("cpu"):
                table = self.compute(self.grid_size)
            self.table = table.to(self.table.device, self.dtype_for(self.table.dtype))
        return self


class SinusoidalPosition(FixedTable):
    """Add fixed sines and cosines of the token's number; nothing to learn, nothing to save.

    Args:
        grid_size: Patches down and across; tokens are numbered row by row.
        embed_dim: Width of a token.
    """

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int) -> None:
        self.embed_dim = embed_dim
        super().__init__(grid_size)

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Rows of `sinusoid`, one per cell."""
        return sinusoid(grid_size[0] * grid_size[1], self.embed_dim)

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Add the sinusoids. Raises ShapeError unless there is one token per cell."""
        _check_count(tokens, *(grid_size or self.grid_size))
        return tokens + self.table_for(grid_size)


class SinCosPosition(FixedTable):
    """Add fixed sines and cosines of the token's row and column.

    Args:
        grid_size: Patches down and across.
        embed_dim: Width of a token, a multiple of 4.
        variant: See `sincos2d`.
    """

    def __init__(
        self, *, grid_size: tuple[int, int], embed_dim: int, variant: Literal["mae", "big_vision"] = "mae"
    ) -> None:
        self.embed_dim = embed_dim
        self.variant: Literal["mae", "big_vision"] = variant
        super().__init__(grid_size)

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Rows of `sincos2d`, one per cell."""
        return sincos2d(grid_size, self.embed_dim, variant=self.variant)

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Add the sinusoids. Raises ShapeError unless there is one token per cell."""
        _check_count(tokens, *(grid_size or self.grid_size))
        return tokens + self.table_for(grid_size)


class NoPosition(nn.Module):
    """Add nothing."""

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """The tokens as they are."""
        return tokens


def sinusoid(num_tokens: int, embed_dim: int) -> Float[Tensor, "tokens embed_dim"]:
    """Sines in the even columns, cosines in the odd ones, wavelengths from 2 pi to 10000 * 2 pi tokens.

    Args:
        num_tokens: Rows, one per token number p = 0, 1, …
        embed_dim: Columns d.

    Returns:
        `[p, 2i] = sin(p / 10000^(2i/d))`, `[p, 2i + 1] = cos(p / 10000^(2i/d))`, float64.

    Source:
        Vaswani et al. 2017, section 3.5 (1706.03762). An odd width ends with a sine, which the paper leaves open.
    """
    columns = torch.arange(embed_dim, dtype=torch.float64)
    even = columns - columns % 2
    angles = torch.arange(num_tokens, dtype=torch.float64)[:, None] / 10000 ** (even / embed_dim)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def sincos2d(
    grid_size: tuple[int, int], embed_dim: int, *, variant: Literal["mae", "big_vision"] = "mae"
) -> Float[Tensor, "tokens embed_dim"]:
    """Four quarters: sines and cosines of the column, then sines and cosines of the row.

    Args:
        grid_size: Rows and columns.
        embed_dim: Columns d of the table, a multiple of 4.
        variant: The i-th of q = d/4 wavelengths is 2 pi * 10000^(i/q) in `mae`, so that the longest is never reached;
            10000^(i/(q - 1)) in `big_vision`, where it is.

    Returns:
        One row per cell, row by row, float64.

    Source:
        He et al. 2022, MAE (2111.06377), `util/pos_embed.py`; Beyer et al. 2022 (2205.01580), `posemb_sincos_2d`.
    """
    quarter = embed_dim // 4
    steps = quarter if variant == "mae" else max(1, quarter - 1)
    frequencies = 10000 ** -(torch.arange(quarter, dtype=torch.float64) / steps)
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid_size)
    rows, columns = rows[:, None].expand(*grid_size, quarter), columns.expand(*grid_size, quarter)
    return rearrange(torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], -1), "h w d -> (h w) d")


def resize_grid(
    grid: PositionGrid, grid_size: tuple[int, int], interpolation: Interpolation = "timm"
) -> Float[Tensor, "rows columns embed_dim"]:
    """Resample a position grid to another number of rows and columns.

    Args:
        grid: `[height, width, embed_dim]`.
        grid_size: Rows and columns to come to.
        interpolation: Whose: `timm` is bicubic with antialias; `torchvision` bicubic with aligned corners;
            `huggingface` (DeiT, DINOv2 and MAE too) plain bicubic; `google` linear with aligned corners.

    Returns:
        `[*grid_size, embed_dim]` in the grid's dtype; the same values where the size is already right.

    Source:
        timm's `resample_abs_pos_embed`, torchvision's `interpolate_embeddings`, transformers'
        `interpolate_pos_encoding`, and scipy's `zoom(order=1)` in Google's code. Each takes the old grid for a square;
        here it may have any shape.
    """
    if tuple(grid.shape[:2]) == tuple(grid_size):
        return grid
    # Half precision would round the weights of the kernel; float64 stays what it is.
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))
    resized = F.interpolate(
        rearrange(precise, "h w d -> 1 d h w"),
        size=grid_size,
        mode="bilinear" if interpolation == "google" else "bicubic",
        antialias=interpolation == "timm",
        align_corners=interpolation in ("torchvision", "google"),
    )
    return rearrange(resized, "1 d h w -> h w d").to(grid.dtype)


def _check_count(tokens: Tokens, rows: int, columns: int) -> None:
    if tokens.shape[1] != rows * columns:
        raise ShapeError(
            f"{tokens.shape[1]} tokens: do not fill the position grid of {rows}x{columns}; resize images or grid"
        )
