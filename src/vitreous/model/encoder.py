"""Tokens -> tokens in context: blocks of attention and MLP. Dosovitskiy et al. 2021, eq. 2-3 (2010.11929)."""

from collections.abc import Iterable

from torch import nn

from vitreous.tensors import Tokens


class Block(nn.Module):
    """Attention, then MLP; each behind its own norm and beside a residual path (pre-norm).

    Args:
        norm1: Before the attention.
        attn: Tokens to tokens, mixing them.
        norm2: Before the MLP.
        mlp: Tokens to tokens, each alone.
        drop_path: What a branch passes before it is added; drawn anew for each of the two.
    """

    def __init__(
        self, *, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, drop_path: nn.Module
    ) -> None:
        super().__init__()
        self.norm1 = norm1
        self.attn = attn
        self.norm2 = norm2
        self.mlp = mlp
        self.drop_path = drop_path

    def forward(self, tokens: Tokens) -> Tokens:
        """Add what the tokens tell each other, then what each makes of it."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Encoder(nn.Module):
    """Blocks one after the other, and a last norm: pre-norm blocks leave their sum unnormalised.

    Args:
        blocks: At least one, first to last.
        norm: After the last block.
        drop_rate: Dropout on the incoming tokens, class token included.
    """

    def __init__(self, blocks: Iterable[nn.Module], *, norm: nn.Module, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, tokens: Tokens) -> Tokens:
        """Pass the tokens through every block."""
        tokens = self.drop(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
