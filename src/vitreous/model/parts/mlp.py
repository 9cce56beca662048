"""Tokens -> tokens, each transformed alone."""

from torch import Tensor, nn

from vitreous.tensors import Tokens


class Mlp(nn.Module):
    """Two linear layers with a non-linearity between, dropout after each.

    Args:
        embed_dim: Width of a token.
        hidden_dim: Width between the layers.
        act: The non-linearity.
        bias: Whether the layers have a bias.
        proj_drop_rate: Dropout after each layer.
    """

    def __init__(
        self, *, embed_dim: int, hidden_dim: int, act: nn.Module, bias: bool = True, proj_drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim, bias=bias)
        self.act = act
        self.drop1 = nn.Dropout(proj_drop_rate)
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)
        self.drop2 = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tokens) -> Tokens:
        """Widen, bend, narrow."""
        hidden = self.drop1(self.act(self.fc1(tokens)))
        return self.drop2(self.fc2(hidden))


class GatedMlp(nn.Module):
    """An MLP whose hidden layer has two halves: one, bent, scales the other. With SiLU this is SwiGLU.

    Args:
        embed_dim: Width of a token.
        hidden_dim: Width of each half.
        act: Bends the gate.
        bias: Whether the layers have a bias.
        proj_drop_rate: Dropout after each layer.

    Source:
        Shazeer 2020, eq. 6 (2002.05202). `fc1` holds the gate's rows first, then the value's, as DINOv2's `w12`.
    """

    def __init__(
        self, *, embed_dim: int, hidden_dim: int, act: nn.Module, bias: bool = True, proj_drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, 2 * hidden_dim, bias=bias)
        self.act = act
        self.drop1 = nn.Dropout(proj_drop_rate)
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)
        self.drop2 = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tokens) -> Tokens:
        """Widen twice, scale one half by the other, narrow."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.drop2(self.fc2(self.drop1(self.act(gate) * value)))


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the approximation of GELU that CLIP was trained with (2103.00020, 1606.08415)."""

    def forward(self, values: Tensor) -> Tensor:
        """Bend."""
        return values * (1.702 * values).sigmoid()
