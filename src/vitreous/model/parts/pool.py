"""Tokens -> features: one vector per image."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.tensors import Features, Tokens

SideBySide = Float[Tensor, "batch num_features"]
"""One vector per image, of as many tokens' widths as were read."""


class ClassTokenPool(nn.Module):
    """Read the first token, which every block let gather from the patches.

    Args:
        num_read: How many to read, side by side: 2 for a class and a distillation token. A pool that has this attribute
            is not given other tokens.
    """

    def __init__(self, num_read: int = 1) -> None:
        super().__init__()
        self.num_read = num_read

    def forward(self, tokens: Tokens) -> SideBySide:
        """The class token."""
        return tokens[:, : self.num_read].flatten(1)


class MeanPool(nn.Module):
    """Average the patch tokens; the mean itself is a path by which patches speak to each other.

    Args:
        num_prefix_tokens: Tokens before the patches, which do not take part.
    """

    def __init__(self, num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, tokens: Tokens) -> Features:
        """The mean over patches."""
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)


class MaxPool(nn.Module):
    """For each channel, the largest value of any patch.

    Args:
        num_prefix_tokens: Tokens before the patches, which do not take part.
    """

    def __init__(self, num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, tokens: Tokens) -> Features:
        """The maximum over patches."""
        return tokens[:, self.num_prefix_tokens :].amax(dim=1)


class TokenMeanPool(nn.Module):
    """The class token beside the mean of the patches, twice as wide: what DINOv2's linear classifiers read.

    Args:
        num_prefix_tokens: Tokens before the patches, at least one.
    """

    def __init__(self, num_prefix_tokens: int = 1) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, tokens: Tokens) -> SideBySide:
        """Class token, then mean over patches."""
        return torch.cat([tokens[:, 0], tokens[:, self.num_prefix_tokens :].mean(dim=1)], dim=1)


class AttentionPool(nn.Module):
    """One learned query attends to all patches; an MLP beside a residual path follows. "MAP head".

    Args:
        embed_dim: Width of a token.
        num_heads: Attention heads; divides `embed_dim`.
        norm: Before the MLP.
        mlp: Tokens to tokens.
        num_prefix_tokens: Tokens before the patches, which do not take part.

    Source:
        Zhai et al. 2022 (2106.04560), after Lee et al. 2019 (1810.00825); SigLIP's image tower (2303.15343).
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, norm: nn.Module, mlp: nn.Module, num_prefix_tokens: int = 0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_prefix_tokens = num_prefix_tokens
        self.probe = nn.Parameter(torch.zeros(embed_dim))
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm = norm
        self.mlp = mlp

    def forward(self, tokens: Tokens) -> Features:
        """What the query gathers from the patches and makes of it."""
        tokens = tokens[:, self.num_prefix_tokens :]
        query = rearrange(self.q(self.probe), "(h d) -> 1 h 1 d", h=self.num_heads).expand(tokens.shape[0], -1, -1, -1)
        keys, values = rearrange(self.kv(tokens), "b n (two h d) -> two b h n d", two=2, h=self.num_heads)
        gathered = F.scaled_dot_product_attention(query, keys, values)
        pooled = self.proj(rearrange(gathered, "b h 1 d -> b 1 (h d)"))
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class SequencePool(nn.Module):
    """A mean over patches whose weights a linear layer reads off the patches themselves.

    Args:
        embed_dim: Width of a token.
        num_prefix_tokens: Tokens before the patches, which do not take part.

    Source:
        Hassani et al. 2021, eq. 1-3 (2104.05704).
    """

    def __init__(self, embed_dim: int, num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.score = nn.Linear(embed_dim, 1)

    def forward(self, tokens: Tokens) -> Features:
        """The weighted mean."""
        patches = tokens[:, self.num_prefix_tokens :]
        return (self.score(patches).softmax(dim=1).transpose(1, 2) @ patches)[:, 0]
