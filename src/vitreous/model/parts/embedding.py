"""Patch tokens -> the sequence that enters the encoder: positions added, class token and registers put first.

Dosovitskiy et al. 2021, eq. 1 (2010.11929).
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ShapeError
from vitreous.model.config.model_config import Interpolation, PrefixPosition
from vitreous.tensors import Tokens

PositionGrid = Float[Tensor, "height width embed_dim"]
"""One embedding per cell of the patch grid."""

LongerTokens = Float[Tensor, "batch longer embed_dim"]
"""Prefix tokens followed by patch tokens."""


class LearnedPosition(nn.Module):
    """Learned position embeddings, one of which is added to each patch token.

    The embeddings form a grid, `[height, width, embed_dim]`. The shape of the grid is saved with the weights, so code
    that resizes it does not have to guess it. `Prefix` holds the position of the class token. `interpolation` is the
    method of resizing the grid when `forward` is given another grid size; see `resize_grid`.
    """

    def __init__(self, *, grid_size: tuple[int, int], embed_dim: int, interpolation: Interpolation = "timm") -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(*grid_size, embed_dim))
        self.interpolation: Interpolation = interpolation

    def forward(self, tokens: Tokens, grid_size: tuple[int, int] | None = None) -> Tokens:
        """Add the embeddings, row by row.

        There is one token per cell, without prefix tokens. The grid is resized to `grid_size` if it has another size.

        Raises:
            ShapeError: The tokens do not fill the grid.
        """
        grid: Tensor = self.grid
        if grid_size is not None and grid_size != tuple(grid.shape[:2]):
            grid = resize_grid(grid, grid_size, self.interpolation)
        if tokens.shape[1] != grid.shape[0] * grid.shape[1]:
            raise unfilled(tokens, (grid.shape[0], grid.shape[1]))
        return tokens + rearrange(grid, "h w d -> (h w) d")

    def extra_repr(self) -> str:
        """Return the size of the grid and the width, for the printed form of the module."""
        return "{}x{}, embed_dim={}".format(*self.grid.shape)


class Prefix(nn.Module):
    """Learned tokens, the same for every image, which are put before the patches.

    A prefix token could learn its position embedding too, so a separate one adds nothing. But published weights have
    both: the first rows of timm's `pos_embed` are the positions of prefix tokens.

    Args:
        embed_dim: Width of a token.
        class_token: Add a class token, which the pool may read (2010.11929).
        distill_token: Add a token that learns from a teacher (DeiT, 2012.12877).
        num_registers: Number of registers, in which blocks can store global information (Darcet et al. 2023,
            2309.16588).
        position: Which of these tokens have a position embedding: `all`, `class` (class and distillation token) or
            `none`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        class_token: bool = True,
        distill_token: bool = False,
        num_registers: int = 0,
        position: PrefixPosition = "class",
    ) -> None:
        super().__init__()
        one, some, by_class = (embed_dim,), (num_registers, embed_dim), position != "none"
        self.class_token = _parameter(class_token, one)
        self.class_position = _parameter(class_token and by_class, one)
        self.distill_token = _parameter(distill_token, one)
        self.distill_position = _parameter(distill_token and by_class, one)
        self.registers = _parameter(num_registers > 0, some)
        self.register_position = _parameter(num_registers > 0 and position == "all", some)

    def forward(self, tokens: Tokens) -> LongerTokens:
        """Return class token, distillation token, registers, then the patches."""
        sequence = []
        for token, position in (
            (self.class_token, self.class_position),
            (self.distill_token, self.distill_position),
            (self.registers, self.register_position),
        ):
            if token is not None:
                learned = torch.atleast_2d(token if position is None else token + position)
                sequence.append(learned.expand(tokens.shape[0], -1, -1))
        return torch.cat([*sequence, tokens], dim=1)

    def extra_repr(self) -> str:
        """Return the names and shapes of the tokens, for the printed form of the module."""
        return ", ".join(f"{name}={tuple(parameter.shape)}" for name, parameter in self.named_parameters())


def resize_grid(
    grid: PositionGrid, grid_size: tuple[int, int], interpolation: Interpolation = "timm"
) -> Float[Tensor, "rows columns embed_dim"]:
    """Resize a position grid to another number of rows and columns.

    Args:
        grid: `[height, width, embed_dim]`.
        grid_size: New rows and columns.
        interpolation: `timm` is bicubic with antialiasing; `torchvision` is bicubic with aligned corners;
            `huggingface` (also DeiT and MAE) is plain bicubic; `google` is bilinear with aligned corners; `dinov2` is
            bicubic with the scale factor of Meta's DINO and DINOv2, (new + 0.1) / old.

    Returns:
        `[*grid_size, embed_dim]` in the dtype of the grid; the same tensor if it has this size already.

    Source:
        timm's `resample_abs_pos_embed`, torchvision's `interpolate_embeddings`, transformers'
        `interpolate_pos_encoding`, scipy's `zoom(order=1)` in Google's code, and `interpolate_pos_encoding` in Meta's
        DINOv2, whose models with registers resize as timm does. These functions assume that the old grid is square;
        here it may have any shape.
    """
    if tuple(grid.shape[:2]) == tuple(grid_size):
        return grid
    # Interpolate at least in float32: half precision would round the interpolation weights.
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))
    scale = [(new + 0.1) / old for new, old in zip(grid_size, grid.shape, strict=False)]
    is_scaled = interpolation == "dinov2"
    resized = F.interpolate(
        rearrange(precise, "h w d -> 1 d h w"),
        size=None if is_scaled else grid_size,
        scale_factor=scale if is_scaled else None,
        mode="bilinear" if interpolation == "google" else "bicubic",
        antialias=interpolation == "timm",
        align_corners=interpolation in ("torchvision", "google"),
    )
    return rearrange(resized, "1 d h w -> h w d").to(grid.dtype)


def unfilled(tokens: Tokens, grid_size: tuple[int, int]) -> ShapeError:
    """Return the error for tokens that do not fill the position grid."""
    rows, columns = grid_size
    return ShapeError(
        f"{tokens.shape[1]} tokens: do not fill the position grid of {rows}x{columns}; resize the images or the grid"
    )


def _parameter(exists: bool, shape: tuple[int, ...]) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(shape)) if exists else None
