"""Patch tokens -> a random subset of them for each image, in training only."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.tensors import Kept, Tokens

FewerTokens = Float[Tensor, "batch kept embed_dim"]


def num_kept(num_patches: int, rate: float) -> int:
    """Return how many of `num_patches` patches are kept at this drop rate, at least 1."""
    return max(1, round(num_patches * (1 - rate)))


def keep(tokens: Tokens, kept: Kept) -> FewerTokens:
    """Return the patch tokens with these numbers."""
    return tokens.gather(1, rearrange(kept, "b n -> b n 1").expand(-1, -1, tokens.shape[2]))


class PatchDrop(nn.Module):
    """Drop a random fraction of the patches of each image in training, which makes the training step cheaper.

    `rate` is the fraction of the patches to drop, in [0, 1). At least one patch is kept.

    Source:
        Liu et al. 2022, PatchDropout (2208.07220); Li et al. 2022, FLIP (2212.00794). Here the kept tokens stay in
        their order.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tokens) -> tuple[FewerTokens, Kept | None]:
        """Return the kept tokens and their numbers; the numbers are None if all tokens are kept."""
        if not self.training or self.rate == 0.0:
            return tokens, None
        batch, num_tokens, _ = tokens.shape
        order = torch.rand(batch, num_tokens, device=tokens.device).argsort(dim=1)
        kept = order[:, : num_kept(num_tokens, self.rate)].sort(dim=1).values
        return keep(tokens, kept), kept

    def extra_repr(self) -> str:
        """Return the rate, for the printed form of the module."""
        return f"rate={self.rate}"
