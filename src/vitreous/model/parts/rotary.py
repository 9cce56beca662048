"""A patch grid -> rotations of queries and keys, which make scores depend on the relative position of two patches."""

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.model.parts.fixed_position import FixedTable
from vitreous.model.parts.relation import Relation, as_rotation, first_blocks


class AngleTable(FixedTable):
    """A table of angles in float32 or better; in bfloat16, the angle of the thirtieth cell would be 3 degrees off."""

    def dtype_for(self, dtype: torch.dtype) -> torch.dtype:
        """Return float32, or float64 for a module in float64."""
        return torch.promote_types(dtype, torch.float32)


class RotaryPosition(AngleTable):
    """Fixed angles, the same in all blocks and heads: one half depends on the row, the other on the column.

    Channels i and i + head_dim/2 are rotated as a pair, as in DINOv3. Papers that pair channels 2i and 2i + 1 get the
    same result with the rows of the query and key projections in another order.

    Args:
        grid_size: Rows and columns of patches.
        head_dim: Width of a head, a multiple of 4.
        depth: Number of blocks.
        num_prefix_tokens: Number of tokens before the patches, which are not rotated.
        kind: In `axial`, angle i is the number of the column or row, divided by theta^(4i/head_dim); columns come first
            (RoPE-ViT, Heo et al. 2024, 2403.13298, eq. 6). In `dinov3`, it is 2 pi times the center of the cell,
            scaled to [-1, 1] on each axis, divided by theta^(4i/head_dim); rows come first (Siméoni et al. 2025,
            2508.10104).
        theta: Base of the wavelengths, above 1.
    """

    def __init__(
        self,
        *,
        grid_size: tuple[int, int],
        head_dim: int,
        depth: int,
        num_prefix_tokens: int,
        kind: Literal["axial", "dinov3"],
        theta: float = 100.0,
    ) -> None:
        self.head_dim = head_dim
        self.depth = depth
        self.num_prefix_tokens = num_prefix_tokens
        self.kind: Literal["axial", "dinov3"] = kind
        self.theta = theta
        super().__init__(grid_size)

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Return the angles, `[patches, head_dim / 2]`."""
        quarter = self.head_dim // 4
        frequencies = self.theta ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
        if self.kind == "axial":
            rows, columns = torch.unbind(cells(grid_size), dim=1)
            return torch.cat([columns[:, None] * frequencies, rows[:, None] * frequencies], dim=1)
        centers = 2 * (cells(grid_size) + 0.5) / torch.tensor(grid_size, dtype=torch.float64) - 1
        return rearrange(2 * math.pi * centers[:, :, None] * frequencies, "n two f -> n (two f)")

    def keep_blocks(self, depth: int) -> None:
        """Keep only the relations of the first `depth` blocks."""
        self.depth = depth

    def forward(self, grid_size: tuple[int, int] | None = None) -> list[Relation]:
        """Return one relation per block; they are all the same."""
        angles = rearrange(self.table_for(grid_size), "n f -> 1 1 n f")
        return [as_rotation(angles, self.num_prefix_tokens)] * self.depth


class MixedRotaryPosition(AngleTable):
    """Learned angles: each pair of channels has its own angle per column and per row, in every block and head.

    A head is a multiple of 4 wide; theta is the base of the initial wavelengths. Prefix tokens are not rotated.

    Source:
        Heo et al. 2024, RoPE-Mixed, eq. 7 (2403.13298).
    """

    def __init__(
        self,
        *,
        grid_size: tuple[int, int],
        head_dim: int,
        num_heads: int,
        depth: int,
        num_prefix_tokens: int,
        theta: float = 10.0,
    ) -> None:
        super().__init__(grid_size)
        self.theta = theta
        self.num_prefix_tokens = num_prefix_tokens
        self.freqs = nn.Parameter(torch.zeros(depth, 2, num_heads, head_dim // 2))  # 2: per column, per row

    def compute(self, grid_size: tuple[int, int]) -> Tensor:
        """Return the row and column of each cell, `[patches, 2]`."""
        return cells(grid_size)

    def keep_blocks(self, depth: int) -> None:
        """Keep only the relations of the first `depth` blocks."""
        self.freqs = first_blocks(self.freqs, depth)

    def forward(self, grid_size: tuple[int, int] | None = None) -> list[Relation]:
        """Return one relation per block."""
        rows, columns = torch.unbind(self.table_for(grid_size), dim=1)
        per_column, per_row = rearrange(self.freqs, "block two h f -> two block 1 h 1 f")
        angles = columns[:, None] * per_column + rows[:, None] * per_row
        return [as_rotation(block, self.num_prefix_tokens) for block in angles]


def cells(grid_size: tuple[int, int]) -> Tensor:
    """Return the row and column of each cell, `[patches, 2]`, float64; the cells row by row."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid_size)
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)


def draw_mixed(freqs: Tensor, theta: float, generator: torch.Generator | None) -> None:
    """Fill frequencies in place: the wavelengths of `axial`, turned by a random angle for each block and head.

    The parameter is `[depth, 2, heads, head_dim / 2]`; theta is the base of the wavelengths.

    Source:
        `init_random_2d_freqs` of RoPE-ViT. Magnitudes are theta^(-4i/head_dim); half of the pairs point in a random
        direction, half at a right angle to it.
    """
    depth, _, num_heads, half = freqs.shape
    magnitudes = theta ** -(torch.arange(half // 2) / (half // 2))
    turns = 2 * math.pi * torch.rand(depth, num_heads, 1, generator=generator)
    along = torch.cat([magnitudes * turns.cos(), magnitudes * (turns + math.pi / 2).cos()], dim=-1)
    across = torch.cat([magnitudes * turns.sin(), magnitudes * (turns + math.pi / 2).sin()], dim=-1)
    with torch.no_grad():
        freqs.copy_(torch.stack([along, across], dim=1))
