"""Tokens -> tokens, each transformed alone."""

from torch import nn

from vitreous.tensors import Tokens


class Mlp(nn.Module):
    """Two linear layers with a non-linearity between, dropout after each.

    Args:
        embed_dim: Width of a token.
        hidden_dim: Width between the layers.
        act: The non-linearity.
        proj_drop_rate: Dropout after each layer.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int, act: nn.Module, proj_drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = act
        self.drop1 = nn.Dropout(proj_drop_rate)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.drop2 = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tokens) -> Tokens:
        """Widen, bend, narrow."""
        hidden = self.drop1(self.act(self.fc1(tokens)))
        return self.drop2(self.fc2(hidden))
