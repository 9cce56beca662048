"""Patch tokens -> class token and patch tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.tensors import Tokens

LongerTokens = Float[Tensor, "batch 1+tokens embed_dim"]
"""The sequence with one token put before it."""


class ClassToken(nn.Module):
    """Put one learned token, the same for every image, before the patches.

    Args:
        embed_dim: Width of a token.
        position: Whether it has a learned position of its own. It adds nothing that the token could not learn, but the
            field's weights have both: the first row of timm's `pos_embed` is this one.
    """

    def __init__(self, *, embed_dim: int, position: bool = True) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(embed_dim))
        self.class_position = nn.Parameter(torch.zeros(embed_dim)) if position else None

    def forward(self, tokens: Tokens) -> LongerTokens:
        """Make the sequence one token longer, the class token first."""
        token = self.class_token if self.class_position is None else self.class_token + self.class_position
        return torch.cat([token.expand(tokens.shape[0], 1, -1), tokens], dim=1)
