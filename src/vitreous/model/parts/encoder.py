"""Tokens -> tokens in context: blocks of attention and MLP. Dosovitskiy et al. 2021, eq. 2-3 (2010.11929)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitreous.model.config.model_config import DropPathSchedule
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.relation import NO_RELATION, Relation, of_images
from vitreous.tensors import Tokens
from vitreous.transfer import to_device

SKIP_FROM_RATE = 0.05
"""Drop-path rate from which skipping the dropped images saves more than copying the others costs."""


class Encoder(nn.Module):
    """Blocks one after the other, and a final norm, because pre-norm blocks leave their sum unnormalized.

    Attributes:
        grad_checkpointing: Keep only the input of each block in training and compute the block again in the backward
            pass: a fraction of the memory, a third more time, the same gradients.

    Args:
        blocks: At least one, first to last.
        norm: Applied after the last block.
        norm_pre: Applied before the first block; None for no norm.
        pos_drop_rate: Dropout on the incoming tokens, prefix tokens included.
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
        self,
        tokens: Tokens,
        relations: Sequence[Relation] | None = None,
        *,
        outputs: dict[int, Tensor | None] | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Pass the tokens through the blocks and the final norm.

        Args:
            tokens: The whole sequence, `[batch, tokens, embed_dim]`.
            relations: One per block; None if attention takes only tokens.
            outputs: Dictionary whose keys are numbers of blocks; it is filled with the tokens after each of these
                blocks, before the final norm.
            depth: Run only this many blocks; None runs all.
        """
        tokens = self.norm_pre(self.drop(tokens))
        for number, block in enumerate(self.blocks[:depth]):
            relation = relations[number] if relations else NO_RELATION
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(block, tokens, relation, use_reentrant=False)
            else:
                tokens = block(tokens, relation)
            if outputs is not None and number in outputs:
                outputs[number] = tokens
        return self.norm(tokens)


class Block(nn.Module):
    """Attention, then an MLP, each behind its own norm on a residual branch (pre-norm).

    Args:
        norm1: Applied before the attention.
        attn: Tokens to tokens, mixing them.
        norm2: Applied before the MLP.
        mlp: Tokens to tokens, each by itself.
        drop_path: Adds a branch or drops it, with one draw per image and branch.
        ls1: Scales the attention branch; None for no scale.
        ls2: Scales the MLP branch; None for no scale.
    """

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: Attention,
        norm2: nn.Module,
        mlp: nn.Module,
        drop_path: "DropPath",
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

    def forward(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Compute x + attn(norm1(x)), then x + mlp(norm2(x)); in training each image may skip either branch."""
        tokens = self.drop_path(tokens, self.attend, relation)
        return self.drop_path(tokens, self.transform)

    def attend(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Return the attention branch: tokens exchange information."""
        return self.ls1(self.attn(self.norm1(tokens), relation))

    def transform(self, tokens: Tokens) -> Tokens:
        """Return the MLP branch: each token by itself."""
        return self.ls2(self.mlp(self.norm2(tokens)))


class PostNormBlock(Block):
    """A block with each norm at the end of its branch, before the sum: res-post-norm of Swin v2 (2111.09883)."""

    def attend(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Return the attention branch: tokens exchange information."""
        return self.ls1(self.norm1(self.attn(tokens, relation)))

    def transform(self, tokens: Tokens) -> Tokens:
        """Return the MLP branch: each token by itself."""
        return self.ls2(self.norm2(self.mlp(tokens)))


class DropPath(nn.Module):
    """Stochastic depth: in training, each image skips a branch with probability `rate`; the others are scaled to match.

    Args:
        rate: Probability that an image skips the branch, in [0, 1).

    Source:
        Huang et al. 2016 (1603.09382). They scale by the survival rate at test time. Scaling by its inverse in training
        keeps the same expectation and leaves inference unchanged.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tokens, branch: Callable[..., Tokens], relation: Relation | None = None) -> Tokens:
        """Return tokens + branch(tokens, relation), with the branch dropped for some images in training.

        From a rate of `SKIP_FROM_RATE` only the images that keep the branch go through it. The draw is made on the CPU,
        so that the host never waits for a device. A compiled graph needs a fixed batch, so there all images do.

        Args:
            tokens: `[batch, tokens, embed_dim]`.
            branch: Called with tokens, and with the relation if there is one.
            relation: What attention takes in addition to tokens.
        """
        extra = () if relation is None else (relation,)
        if not self.training or self.rate == 0.0:
            return tokens + branch(tokens, *extra)
        keep_rate = 1 - self.rate
        if self.rate < SKIP_FROM_RATE or torch.compiler.is_compiling():
            added = branch(tokens, *extra)
            survives = added.new_empty(len(added), 1, 1).bernoulli_(keep_rate)
            return tokens + added * (survives / keep_rate)
        survives = torch.empty(len(tokens)).bernoulli_(keep_rate).nonzero().flatten()
        # If every image drops the branch, run one with weight 0, so that the weights still get a (zero) gradient.
        kept = to_device(survives if len(survives) else torch.zeros(1, dtype=torch.int64), tokens.device)
        added = branch(tokens.index_select(0, kept), *(of_images(value, kept) for value in extra))
        return tokens.index_add(0, kept, added.to(tokens.dtype), alpha=1 / keep_rate if len(survives) else 0.0)

    def extra_repr(self) -> str:
        """Return the rate, for the printed form of the module."""
        return f"rate={self.rate}"


class LayerScale(nn.Module):
    """A learned factor per channel of a branch; a small initial value makes a deep model start as a shallow one.

    Args:
        embed_dim: Width of a token.
        initial: Initial value of every factor.

    Source:
        Touvron et al. 2021, CaiT, eq. 4 (2103.17239).
    """

    def __init__(self, embed_dim: int, *, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.full((embed_dim,), initial))

    def forward(self, tokens: Tokens) -> Tokens:
        """Multiply each channel by its factor."""
        return tokens * self.gamma


class Mlp(nn.Module):
    """Two linear layers with an activation between, and dropout after each.

    Args:
        embed_dim: Width of a token.
        hidden_dim: Width between the layers.
        act: The activation.
        bias: Whether the layers have a bias.
        proj_drop_rate: Dropout rate after each layer.
    """

    def __init__(
        self, *, embed_dim: int, hidden_dim: int, act: nn.Module, bias: bool = True, proj_drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, self.num_halves * hidden_dim, bias=bias)
        self.act = act
        self.drop1 = nn.Dropout(proj_drop_rate)
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)
        self.drop2 = nn.Dropout(proj_drop_rate)

    num_halves = 1

    def forward(self, tokens: Tokens) -> Tokens:
        """Compute fc2(act(fc1(x)))."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(tokens)))))


class GatedMlp(Mlp):
    """An MLP in which one half of the hidden layer, after the activation, scales the other. With SiLU this is SwiGLU.

    Args: Those of `Mlp`; `hidden_dim` is the width of each half.

    Source:
        Shazeer 2020, eq. 6 (2002.05202). `fc1` holds the rows of the gate first, then those of the value, as DINOv2's
        `w12` does.
    """

    num_halves = 2

    def forward(self, tokens: Tokens) -> Tokens:
        """Compute fc2(act(gate) * value), where fc1(x) is the gate and the value side by side."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.drop2(self.fc2(self.drop1(self.act(gate) * value)))


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that CLIP was trained with (2103.00020, 1606.08415)."""

    def forward(self, values: Tensor) -> Tensor:
        """Apply the activation to every element."""
        return values * (1.702 * values).sigmoid()


def drop_path_rates(last: float, depth: int, schedule: DropPathSchedule = "linear") -> list[float]:
    """Return a rate for each block.

    Args:
        last: Rate of the last block, also if it is the only one.
        depth: Number of blocks.
        schedule: `linear` rises from 0 in the first block, as in timm; `constant` is the same in all, as in DeiT III
            (2204.07118).
    """
    if depth == 1 or schedule == "constant":
        return [last] * depth
    return [last * block / (depth - 1) for block in range(depth)]
