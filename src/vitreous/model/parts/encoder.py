"""Tokens -> contextualized tokens: blocks of attention and MLP. Dosovitskiy et al. 2021, eq. 2-3 (2010.11929)."""

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
"""Drop path rate from which it is faster to run the branch only for the images that keep it, in spite of the copy."""


class Encoder(nn.Module):
    """A sequence of blocks and a final norm.

    The final norm is needed because pre-norm blocks do not normalize their output.

    There is at least one block. `norm_pre` is applied before the first one; None for no norm. `pos_drop_rate` is the
    dropout rate of the incoming tokens, prefix tokens included. With `grad_checkpointing`, training stores only the
    input of each block and recomputes the block in the backward pass. The gradients are the same; it takes a fraction
    of the memory and a third more time.
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

        There is one relation per block; None if attention takes only tokens. `outputs` has block numbers as keys, and
        its values are set to the tokens after these blocks, before the final norm. Only the first `depth` blocks run;
        None runs all.
        """
        tokens = self.norm_pre(self.drop(tokens))
        for number, block in enumerate(self.blocks[:depth]):
            relation = NO_RELATION if relations is None else relations[number]
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(block, tokens, relation, use_reentrant=False)
            else:
                tokens = block(tokens, relation)
            if outputs is not None and number in outputs:
                outputs[number] = tokens
        return self.norm(tokens)


class Block(nn.Module):
    """Attention, then an MLP, each on a residual branch that starts with a norm (pre-norm).

    `drop_path` adds a branch to the tokens or drops it, separately for each image and branch. `ls1` and `ls2` scale the
    branches; None for no scale.
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
        """Compute x = x + attn(norm1(x)), then x + mlp(norm2(x)); in training, each image may skip either branch."""
        tokens = self.drop_path(tokens, self.attend, relation)
        return self.drop_path(tokens, self.transform)

    def attend(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Return the attention branch, in which tokens exchange information."""
        return self.ls1(self.attn(self.norm1(tokens), relation))

    def transform(self, tokens: Tokens) -> Tokens:
        """Return the MLP branch, which treats each token separately."""
        return self.ls2(self.mlp(self.norm2(tokens)))


class PostNormBlock(Block):
    """A block with the norm at the end of each branch instead of its start: res-post-norm of Swin v2 (2111.09883)."""

    def attend(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Return the attention branch, in which tokens exchange information."""
        return self.ls1(self.norm1(self.attn(tokens, relation)))

    def transform(self, tokens: Tokens) -> Tokens:
        """Return the MLP branch, which treats each token separately."""
        return self.ls2(self.norm2(self.mlp(tokens)))


class DropPath(nn.Module):
    """Stochastic depth: in training, each image skips a branch with probability `rate`.

    The rate is in [0, 1).

    Source:
        Huang et al. 2016 (1603.09382). They scale branches by the survival rate at test time. Here kept branches are
        divided by it in training, which gives the same expectation and leaves inference unchanged.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tokens, branch: Callable[..., Tokens], relation: Relation | None = None) -> Tokens:
        """Return tokens + branch(tokens, relation), with the branch dropped for some images in training.

        From a rate of `SKIP_FROM_RATE`, the branch runs only for the images that keep it. They are drawn on the CPU, so
        that the host does not wait for a device. In a compiled graph, whose batch size is fixed, the branch runs for
        all images. The relation is for attention; None for a branch that takes only tokens.
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
        # If every image drops the branch, run it for one image and add 0 times the result: its weights need a gradient.
        kept = to_device(survives if len(survives) else torch.zeros(1, dtype=torch.int64), tokens.device)
        added = branch(tokens.index_select(0, kept), *(of_images(value, kept) for value in extra))
        return tokens.index_add(0, kept, added.to(tokens.dtype), alpha=1 / keep_rate if len(survives) else 0.0)

    def extra_repr(self) -> str:
        """Return the rate, for the printed form of the module."""
        return f"rate={self.rate}"


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch.

    With a small initial value, each block starts close to the identity, which helps deep models to train.

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
    """Two linear layers with an activation between them, and dropout after the activation and after the second layer.

    `hidden_dim` is the width between the layers, and `proj_drop_rate` the dropout rate at both places.
    """

    num_halves = 1

    def __init__(
        self, *, embed_dim: int, hidden_dim: int, act: nn.Module, bias: bool = True, proj_drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, self.num_halves * hidden_dim, bias=bias)
        self.act = act
        self.drop1 = nn.Dropout(proj_drop_rate)
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)
        self.drop2 = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tokens) -> Tokens:
        """Compute fc2(act(fc1(x)))."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(tokens)))))


class GatedMlp(Mlp):
    """An MLP in which one half of the hidden layer, after the activation, scales the other. With SiLU this is SwiGLU.

    The arguments are those of `Mlp`; `hidden_dim` is the width of each half.

    Source:
        Shazeer 2020, eq. 6 (2002.05202). The first rows of `fc1` compute the gate, the others the value, as in `w12` of
        DINOv2.
    """

    num_halves = 2

    def forward(self, tokens: Tokens) -> Tokens:
        """Compute fc2(act(gate) * value), where fc1(x) is the gate and the value side by side."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.drop2(self.fc2(self.drop1(self.act(gate) * value)))


class QuickGELU(nn.Module):
    """The approximation x * sigmoid(1.702 x) of GELU, with which CLIP was trained (2103.00020, 1606.08415)."""

    def forward(self, values: Tensor) -> Tensor:
        """Apply the activation to every element."""
        return values * (1.702 * values).sigmoid()


def drop_path_rates(last: float, depth: int, schedule: DropPathSchedule = "linear") -> list[float]:
    """Return the drop path rate of each block.

    `linear` rises from 0 in the first block to that of the last, as in timm; `constant` is the same in all, as in DeiT
    III (2204.07118).
    """
    if depth == 1 or schedule == "constant":
        return [last] * depth
    return [last * block / (depth - 1) for block in range(depth)]
