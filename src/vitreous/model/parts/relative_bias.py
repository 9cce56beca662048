"""A patch grid -> learned biases on the attention scores, one for each distance of two patches in rows and columns."""

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ShapeError
from vitreous.model.parts.relation import Relation, first_blocks

BiasTable = Float[Tensor, "blocks heads row_offsets column_offsets"]
"""One bias per row distance and column distance; each distance runs from -(side - 1) to side - 1."""


class RelativeBias(nn.Module):
    """A learned bias for each block, head and relative position of two patches.

    Prefix tokens have no position. For them, each block and head has three biases: from a prefix token to a patch, from
    a patch to a prefix token, and between prefix tokens.

    Source:
        Liu et al. 2021, Swin (2103.14030), eq. 4. The biases of prefix tokens follow BEiT (2106.08254).
    """

    def __init__(self, *, grid_size: tuple[int, int], num_heads: int, depth: int, num_prefix_tokens: int) -> None:
        super().__init__()
        rows, columns = grid_size
        self.grid_size = grid_size
        self.num_prefix_tokens = num_prefix_tokens
        self.table = nn.Parameter(torch.zeros(depth, num_heads, 2 * rows - 1, 2 * columns - 1))
        self.prefix_table = nn.Parameter(torch.zeros(depth, num_heads, 3)) if num_prefix_tokens else None

    def keep_blocks(self, depth: int) -> None:
        """Keep only the relations of the first `depth` blocks."""
        self.table = first_blocks(self.table, depth)
        if self.prefix_table is not None:
            self.prefix_table = first_blocks(self.prefix_table, depth)

    def forward(self, grid_size: tuple[int, int] | None = None) -> list[Relation]:
        """Return one relation per block. Raises ShapeError if the table was made for another grid size."""
        if grid_size is not None and grid_size != self.grid_size:
            raise ShapeError(
                f"a grid of {grid_size[0]}x{grid_size[1]}: relative_bias has entries only "
                "for {}x{}; resize the images, or the model with resize_model".format(*self.grid_size)
            )
        index = offset_index(self.grid_size, self.table.device)
        bias = self.table.flatten(2)[:, :, index]
        if self.prefix_table is not None:
            bias = self._with_prefix(bias, self.prefix_table)
        return [Relation(bias=block[None]) for block in bias]

    def _with_prefix(self, bias: Tensor, prefix_table: Tensor) -> Tensor:
        count, patches = self.num_prefix_tokens, bias.shape[-1]
        to_patch, to_prefix, among = rearrange(prefix_table, "block h three -> three block h 1 1")
        above = torch.cat([among.expand(-1, -1, count, count), to_patch.expand(-1, -1, count, patches)], dim=-1)
        below = torch.cat([to_prefix.expand(-1, -1, patches, count), bias], dim=-1)
        return torch.cat([above, below], dim=-2)


def offset_index(grid_size: tuple[int, int], device: torch.device | str = "cpu") -> Int64[Tensor, "patches patches"]:
    """Return the index of each pair of patches in a flattened table of `[2 rows - 1, 2 columns - 1]` biases."""
    rows, columns = grid_size
    row, column = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )  # fmt: skip
    row, column = row.flatten(), column.flatten()
    down, across = row[:, None] - row + rows - 1, column[:, None] - column + columns - 1
    return down * (2 * columns - 1) + across


def resize_table(table: BiasTable, grid_size: tuple[int, int]) -> Float[Tensor, "blocks heads rows columns"]:
    """Resize a table for another grid size by bicubic interpolation, similar to the code of timm and BEiT."""
    size = (2 * grid_size[0] - 1, 2 * grid_size[1] - 1)
    if tuple(table.shape[2:]) == size:
        return table
    precise = table.to(torch.promote_types(table.dtype, torch.float32))
    return F.interpolate(precise, size=size, mode="bicubic", align_corners=True).to(table.dtype)
