"""Tokens -> tokens in context: blocks of attention and MLP. Dosovitskiy et al. 2021, eq. 2-3 (2010.11929)."""

from collections.abc import Iterable, Iterator, Sequence

from torch import nn
from torch.utils.checkpoint import checkpoint

from vitreous.model.parts.attention import Heads
from vitreous.model.parts.relation import Relation
from vitreous.model.parts.residual import DropPath
from vitreous.tensors import FirstTokens, Tokens

_NOTHING = Relation()


class Block(nn.Module):
    """Attention, then MLP; each behind its own norm and beside a residual path (pre-norm).

    Args:
        norm1: Before the attention.
        attn: Tokens to tokens, mixing them.
        ls1: Scales what attention gives.
        norm2: Before the MLP.
        mlp: Tokens to tokens, each alone.
        ls2: Scales what the MLP gives.
        drop_path: Adds a branch, or drops it; drawn anew for each of the two.
    """

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        drop_path: DropPath,
        ls1: nn.Module | None = None,
        ls2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm1
        self.attn = attn
        self.ls1 = ls1 or nn.Identity()
        self.norm2 = norm2
        self.mlp = mlp
        self.ls2 = ls2 or nn.Identity()
        self.drop_path = drop_path

    def forward(self, tokens: Tokens, relation: Relation = _NOTHING) -> FirstTokens:
        """Add what the tokens tell each other, then what each makes of it."""
        return self.think(self.look(tokens, relation))

    def look(self, tokens: Tokens, relation: Relation = _NOTHING) -> FirstTokens:
        """The first half: tokens gather from each other."""
        return self.drop_path.add(tokens, self._gathered, relation)

    def look_with_keys(self, tokens: Tokens, relation: Relation = _NOTHING) -> tuple[Tokens, Heads]:
        """The first half, and the attention's keys, by which tokens can be compared."""
        gathered, keys = self.attn(self.norm1(tokens), relation, with_keys=True)
        return tokens + self.drop_path(self.ls1(gathered)), keys

    def think(self, tokens: Tokens) -> Tokens:
        """The second half: each token alone."""
        return self.drop_path.add(tokens, self._thought, _NOTHING)

    def _gathered(self, tokens: Tokens, relation: Relation) -> FirstTokens:
        return self.ls1(self.attn(self.norm1(tokens), relation))

    def _thought(self, tokens: Tokens, _: Relation) -> Tokens:
        return self.ls2(self.mlp(self.norm2(tokens)))


class PostNormBlock(Block):
    """The same with each norm after its branch, before the sum: res-post-norm, of Swin v2 (2111.09883)."""

    def look_with_keys(self, tokens: Tokens, relation: Relation = _NOTHING) -> tuple[Tokens, Heads]:
        """The first half, and the attention's keys, by which tokens can be compared."""
        gathered, keys = self.attn(tokens, relation, with_keys=True)
        return tokens + self.drop_path(self.ls1(self.norm1(gathered))), keys

    def _gathered(self, tokens: Tokens, relation: Relation) -> FirstTokens:
        return self.ls1(self.norm1(self.attn(tokens, relation)))

    def _thought(self, tokens: Tokens, _: Relation) -> Tokens:
        return self.ls2(self.norm2(self.mlp(tokens)))


class Encoder(nn.Module):
    """Blocks one after the other, and a last norm: pre-norm blocks leave their sum unnormalised.

    Attributes:
        grad_checkpointing: Whether training keeps each block's input alone and computes the block again in the
            backward: a fraction of the memory for a third more time, the same gradients.

    Args:
        blocks: At least one, first to last.
        norm: After the last block.
        norm_pre: Before the first.
        pos_drop_rate: Dropout on the incoming tokens, class token included.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        *,
        norm: nn.Module,
        norm_pre: nn.Module | None = None,
        pos_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.drop = nn.Dropout(pos_drop_rate)
        self.norm_pre = norm_pre or nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(
        self, tokens: Tokens, relations: Sequence[Relation] | None = None, num_read: int | None = None
    ) -> FirstTokens:
        """Pass the tokens through every block.

        Args:
            tokens: With prefix.
            relations: One per block; None where attention takes tokens alone.
            num_read: How many will be read, from the first: in the last block those alone look at the others and go
                through the MLP, which changes rounding alone. All do where a hook would miss the rest, or dropout draw
                other numbers. None: all are read.
        """
        if num_read is not None and not self._needs_all():
            *before, last = relations or [_NOTHING] * len(self.blocks)
            relations = [*before, last._replace(num_queries=num_read)]
        for tokens in self.steps(tokens, relations):  # noqa: B007, B020 - `*_, last =` would keep them all
            pass
        return self.norm(tokens)

    def steps(self, tokens: Tokens, relations: Sequence[Relation] | None = None) -> Iterator[FirstTokens]:
        """The tokens after each block, one block at a time, before the last norm."""
        tokens = self.norm_pre(self.drop(tokens))
        for number, block in enumerate(self.blocks):
            relation = relations[number] if relations else _NOTHING
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(block, tokens, relation, use_reentrant=False)
            else:
                tokens = block(tokens, relation)
            yield tokens

    def _needs_all(self) -> bool:
        """Whether somebody would notice that the last block leaves tokens out."""
        parts = (self, self.norm, *self.blocks[-1].modules())
        return any(map(_has_hooks, parts)) or (self.training and any(map(_draws_by_token, parts)))


def _has_hooks(module: nn.Module) -> bool:
    """Whether something is called with what this very module takes or gives, forward or backward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(map(len, hooks))


def _draws_by_token(module: nn.Module) -> bool:
    """Whether its dropout, in training, draws numbers for every token."""
    return any(getattr(module, rate, 0.0) for rate in ("p", "drop_rate", "attn_drop_rate"))
