"""Tokens -> features, one vector per image."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.tensors import Features, Tokens

SideBySide = Float[Tensor, "batch num_features"]
"""One vector per image, which may be several tokens side by side."""


class ClassTokenPool(nn.Module):
    """Pool that reads the class token, which has attended to the patches in every block.

    `num_read` is the number of tokens to read, counted from the first: 2 for a class and a distillation token.
    """

    def __init__(self, num_read: int = 1) -> None:
        super().__init__()
        self.num_read = num_read

    def forward(self, tokens: Tokens) -> SideBySide:
        """Return the first `num_read` tokens side by side, `[batch, num_read * embed_dim]`."""
        return tokens[:, : self.num_read].flatten(1)


class PatchPool(nn.Module):
    """Base class of the pools that read patch tokens."""

    def __init__(self, num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens


class MeanPool(PatchPool):
    """Pool that averages the patch tokens (global average pooling)."""

    def forward(self, tokens: Tokens) -> Features:
        """Return the mean over patches."""
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)


class MaxPool(PatchPool):
    """Pool that takes the largest value of each channel over the patches."""

    def forward(self, tokens: Tokens) -> Features:
        """Return the maximum over patches."""
        return tokens[:, self.num_prefix_tokens :].amax(dim=1)


class TokenMeanPool(PatchPool):
    """Pool that concatenates the class token and the mean of the patches, as DINOv2's linear classifiers do."""

    def forward(self, tokens: Tokens) -> SideBySide:
        """Return the class token followed by the mean over patches, `[batch, 2 * embed_dim]`."""
        return torch.cat([tokens[:, 0], tokens[:, self.num_prefix_tokens :].mean(dim=1)], dim=1)


class AttentionPool(PatchPool):
    """Pool in which one learned query attends to all patches, followed by a residual MLP: the "MAP head".

    `num_heads` must divide `embed_dim`. `norm` is applied before the MLP. The first `num_prefix_tokens` tokens are not
    read.

    Source:
        Zhai et al. 2022 (2106.04560), after Lee et al. 2019 (1810.00825); the image tower of SigLIP (2303.15343).
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, norm: nn.Module, mlp: nn.Module, num_prefix_tokens: int = 0
    ) -> None:
        super().__init__(num_prefix_tokens)
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.zeros(embed_dim))
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm = norm
        self.mlp = mlp

    def forward(self, tokens: Tokens) -> Features:
        """Return x + mlp(norm(x)), where x is the attention output of the query."""
        tokens = tokens[:, self.num_prefix_tokens :]
        query = rearrange(self.q(self.probe), "(h d) -> 1 h 1 d", h=self.num_heads).expand(tokens.shape[0], -1, -1, -1)
        keys, values = rearrange(self.kv(tokens), "b n (two h d) -> two b h n d", two=2, h=self.num_heads)
        attended = F.scaled_dot_product_attention(query, keys, values)
        pooled = self.proj(rearrange(attended, "b h 1 d -> b 1 (h d)"))
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class SequencePool(PatchPool):
    """Pool that averages the patches with weights that a linear layer computes from them.

    Source:
        Hassani et al. 2021, eq. 1-3 (2104.05704).
    """

    def __init__(self, embed_dim: int, num_prefix_tokens: int = 0) -> None:
        super().__init__(num_prefix_tokens)
        self.score = nn.Linear(embed_dim, 1)

    def forward(self, tokens: Tokens) -> Features:
        """Return the weighted mean over patches."""
        patches = tokens[:, self.num_prefix_tokens :]
        return (self.score(patches).softmax(dim=1).transpose(1, 2) @ patches)[:, 0]
