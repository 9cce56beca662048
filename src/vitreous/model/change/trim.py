"""A model whose pool reads only the class token -> the same model with a faster last block.

The pool reads one token of the last block, so only this token needs a query and only it goes through the MLP. Logits
and gradients differ only by rounding. `benchmarks/trim.py` measures how much time this saves.
"""

from collections.abc import Sequence
from typing import cast

from torch import nn

from vitreous.model.parts.encoder import Block, Encoder
from vitreous.model.parts.pool import ClassTokenPool
from vitreous.model.parts.relation import NO_RELATION, Relation
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Features, FirstTokens, Images, Logits, Tokens


class TrimmedVisionTransformer(VisionTransformer):
    """A VisionTransformer whose last block computes only the tokens that the pool reads.

    Methods that return tokens, such as `forward_features`, still compute every token. `forward` and `pooled` do too if
    something in or after the last block has hooks, or while dropout, drop path or gradient checkpointing is active.
    """

    def forward(self, images: Images) -> Logits:
        """Return the logits of each class; see `VisionTransformer.forward`."""
        return self.head(self.pooled(images))

    def pooled(self, images: Images) -> Features:
        """Return the pooled features; see `Backbone.pooled`."""
        if not can_trim(self):
            return super().pooled(images)
        tokens, relations = self.embed(images)
        return pool_trimmed(self, self.encoder.norm_pre(self.encoder.drop(tokens)), relations, 0)


def trim_last_block(model: VisionTransformer) -> VisionTransformer:
    """Return a model that shares all parts, and whose last block computes only the tokens that the pool reads.

    The model itself is returned if its pool reads patches, or if its encoder merges tokens. As the parts are shared,
    pruning one model prunes the other.
    """
    is_plain = type(model) is VisionTransformer and type(model.encoder) is Encoder
    if not is_plain or not isinstance(model.pool, ClassTokenPool):
        return model
    return TrimmedVisionTransformer(model.config, **model.parts()).train(model.training)


def can_trim(model: VisionTransformer) -> bool:
    """Return True if `pool_trimmed` differs from the whole model only by rounding.

    The pool must read nothing but the first tokens, no hook may expect all tokens, and nothing may draw random numbers.
    """
    encoder, block = model.encoder, cast("Block", model.encoder.blocks[-1])
    if not isinstance(model.pool, ClassTokenPool) or type(encoder) is not Encoder or type(block) is not Block:
        return False
    if any(map(_has_hooks, (encoder, encoder.norm, model.pool, *block.modules()))):
        return False
    return not (model.training and (encoder.grad_checkpointing or any(map(_draws, block.modules()))))


def pool_trimmed(
    model: VisionTransformer, tokens: Tokens, relations: Sequence[Relation] | None, first: int
) -> Features:
    """Return the pooled features for the tokens that enter block `first`, if `can_trim` allows it."""
    *others, last = cast("list[Block]", list(model.encoder.blocks)[first:])
    left = relations[first:] if relations else [NO_RELATION] * (len(others) + 1)
    for block, relation in zip(others, left, strict=False):
        tokens = block(tokens, relation)
    read = forward_trimmed(last, tokens, left[-1], cast("ClassTokenPool", model.pool).num_read)
    return model.fc_norm(model.pool(model.encoder.norm(read)))


def forward_trimmed(block: Block, tokens: Tokens, relation: Relation, num_read: int) -> FirstTokens:
    """Run a pre-norm block for the first `num_read` tokens, which attend to all tokens.

    Dropout and drop path of the block must be inactive.
    """
    normed, first = block.norm1(tokens), tokens[:, :num_read]
    queries, keys, values = block.attn.project(normed, relation)
    bias = None if relation.bias is None else relation.bias[:, :, :num_read]
    attended = block.attn.attend(queries[:, :, :num_read], keys, values, bias)
    first = first + block.ls1(block.attn.output(normed[:, :num_read], attended))
    return first + block.transform(first)


def _has_hooks(module: nn.Module) -> bool:
    """Return True if this module has hooks, forward or backward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(map(len, hooks))


def _draws(module: nn.Module) -> bool:
    """Return True if the module draws random numbers in training."""
    return any(getattr(module, rate, 0.0) for rate in ("p", "attn_drop_rate", "rate"))
