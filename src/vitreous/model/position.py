"""Tokens -> tokens that know their place: a learned grid, or fixed sinusoids."""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ShapeError
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
    """

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(*grid_size, embed_dim))

    def forward(self, tokens: Tokens) -> Tokens:
        """Add the embeddings, row by row. Raises ShapeError unless there is one token per cell."""
        rows, columns, _ = self.grid.shape
        _check_count(tokens, rows, columns)
        return tokens + rearrange(self.grid, "h w d -> (h w) d")


class SinusoidalPosition(nn.Module):
    """Add fixed sines and cosines of the token's number; nothing to learn, nothing to save.

    Args:
        grid_size: Patches down and across; tokens are numbered row by row.
        embed_dim: Width of a token.
    """

    table: Tensor

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        self.grid_size = grid_size
        table = sinusoid(grid_size[0] * grid_size[1], embed_dim).to(torch.get_default_dtype())
        self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Tokens) -> Tokens:
        """Add the sinusoids. Raises ShapeError unless there is one token per cell."""
        _check_count(tokens, *self.grid_size)
        return tokens + self.table

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SinusoidalPosition":
        # Every move of a module passes here. The table is not in the weights, so nobody else would fill it after the
        # meta device, and a cast float32 table would be a rounded float64 one: compute it anew where it arrives.
        super()._apply(fn, recurse)
        if not self.table.is_meta:
            with torch.device("cpu"):
                self.table = sinusoid(*self.table.shape).to(self.table)
        return self


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


def resize_grid(grid: PositionGrid, grid_size: tuple[int, int]) -> Float[Tensor, "rows columns embed_dim"]:
    """Resample a position grid to another number of rows and columns.

    Args:
        grid: `[height, width, embed_dim]`.
        grid_size: Rows and columns to come to.

    Returns:
        `[*grid_size, embed_dim]` in the grid's dtype; the same values where the size is already right.

    Source:
        Bicubic with antialias, as timm's `resample_abs_pos_embed`; unlike there, the old grid may have any shape.
    """
    if grid.shape[:2] == grid_size:
        return grid
    # Half precision would round the weights of the kernel; float64 stays what it is.
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))
    channels_first = rearrange(precise, "h w d -> 1 d h w")
    resized = F.interpolate(channels_first, size=grid_size, mode="bicubic", antialias=True, align_corners=False)
    return rearrange(resized, "1 d h w -> h w d").to(grid.dtype)


def _check_count(tokens: Tokens, rows: int, columns: int) -> None:
    if tokens.shape[1] != rows * columns:
        raise ShapeError(
            f"{tokens.shape[1]} tokens: do not fill the position grid of {rows}x{columns}; resize images or grid"
        )
