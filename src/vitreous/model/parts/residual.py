"""A branch's tokens -> the same, scaled, or nothing: what happens before a residual sum."""

from collections.abc import Callable

import torch
from torch import nn

from vitreous.model.config.model_config import DropPathSchedule
from vitreous.model.parts.relation import Relation, of_images
from vitreous.tensors import FirstTokens, Tokens
from vitreous.transfer import to_device

Branch = Callable[[Tokens, Relation], FirstTokens]
"""What a block adds to its tokens, given those and what attention takes beside them."""

LEAST_SAVED = 0.05
"""Share of the images below which leaving them out costs more, in copies, than it saves."""


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the whole branch of some images and scale the others up to match.

    Args:
        rate: Probability that an image loses the branch, in [0, 1).

    Source:
        Huang et al. 2016 (1603.09382). They scale by the survival rate at test time; scaling by its inverse in training
        keeps the same expectation and leaves inference alone.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tokens) -> Tokens:
        """Zero each image's branch with probability `rate`, one draw per image; the expectation is unchanged."""
        if not self.training or self.rate == 0.0:
            return tokens
        keep_rate = 1 - self.rate
        survives = tokens.new_empty(tokens.shape[0], 1, 1).bernoulli_(keep_rate)
        return tokens * (survives / keep_rate)

    def add(self, tokens: Tokens, branch: Branch, relation: Relation) -> FirstTokens:
        """`tokens + self(branch(tokens, relation))`, where the branch is computed for the images that keep it alone.

        The same draws, sum and gradients, in less time. The draw is made on the CPU: no device is waited for. A
        compiled graph has no place for a number of images that changes, and computes all. A branch may give fewer
        tokens, from the first; the sum has those.
        """
        if not self.training or self.rate < LEAST_SAVED or torch.compiler.is_compiling():
            added = branch(tokens, relation)
            return tokens[:, : added.shape[1]] + self(added)
        keep_rate = 1 - self.rate
        survives = torch.empty(len(tokens)).bernoulli_(keep_rate).nonzero().flatten()
        # Where all lose it, one image's branch counts nothing: its weights have a gradient, of zero, all the same.
        kept = to_device(survives if len(survives) else torch.zeros(1, dtype=torch.int64), tokens.device)
        added = branch(tokens.index_select(0, kept), of_images(relation, kept))
        left = tokens[:, : added.shape[1]]
        return left.index_add(0, kept, added.to(tokens.dtype), alpha=1 / keep_rate if len(survives) else 0.0)

    def extra_repr(self) -> str:
        """The rate, in the module's printed form."""
        return f"rate={self.rate}"


class LayerScale(nn.Module):
    """Scale each channel of a branch by a learned number that starts small: a deep model starts as a shallow one.

    Args:
        embed_dim: Width of a token.
        initial: Where every number starts.

    Source:
        Touvron et al. 2021, CaiT, eq. 4 (2103.17239).
    """

    def __init__(self, embed_dim: int, *, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.full((embed_dim,), initial))

    def forward(self, tokens: Tokens) -> Tokens:
        """Scale."""
        return tokens * self.gamma


def drop_path_rates(last: float, depth: int, schedule: DropPathSchedule = "linear") -> list[float]:
    """A rate for each block: rising from 0 in the first to `last` in the last one as in timm, or the same in all.

    Args:
        last: The last block's rate; with one block, that block's.
        depth: Number of blocks.
        schedule: `linear` rises; `constant` does not, as in DeiT III (2204.07118).
    """
    if depth == 1 or schedule == "constant":
        return [last] * depth
    return [last * block / (depth - 1) for block in range(depth)]
