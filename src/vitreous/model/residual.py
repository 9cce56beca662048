"""A branch's tokens -> the same, or nothing: what happens before a residual sum."""

from torch import nn

from vitreous.tensors import Tokens


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

    def extra_repr(self) -> str:
        """The rate, in the module's printed form."""
        return f"rate={self.rate}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """A rate for each block, rising linearly from 0 in the first to `last` in the last one, as in timm.

    Args:
        last: The last block's rate; with one block, that block's.
        depth: Number of blocks.
    """
    if depth == 1:
        return [last]
    return [last * block / (depth - 1) for block in range(depth)]
