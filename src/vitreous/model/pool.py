"""Tokens -> features: one vector per image."""

from torch import nn

from vitreous.tensors import Features, Tokens


class ClassTokenPool(nn.Module):
    """Read the first token, which every block let gather from the patches."""

    def forward(self, tokens: Tokens) -> Features:
        """The class token."""
        return tokens[:, 0]


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
