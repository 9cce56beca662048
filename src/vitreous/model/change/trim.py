"""A model whose pool reads only the class token -> the same model with a faster last block.

The pool reads one token of the last block, so only this token needs a query and only it goes through the MLP. Logits
and gradients differ only by rounding. `benchmarks/trim.py` measures how much time this saves.
"""

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
        *others, last = cast("list[Block]", list(self.encoder.blocks))
        if not isinstance(self.pool, ClassTokenPool) or not self._can_trim(last):
            return super().pooled(images)
        tokens, relations = self.embed(images)
        relations = relations or [NO_RELATION] * len(self.encoder.blocks)
        tokens = self.encoder.norm_pre(self.encoder.drop(tokens))
        for block, relation in zip(others, relations, strict=False):
            tokens = block(tokens, relation)
        first = forward_trimmed(last, tokens, relations[-1], self.pool.num_read)
        return self.fc_norm(self.pool(self.encoder.norm(first)))

    def _can_trim(self, block: Block) -> bool:
        """Return True if results differ only by rounding: no hook expects all tokens, no random numbers are drawn."""
        readers = (self.encoder, self.encoder.norm, self.pool, *block.modules())
        if type(block) is not Block or any(map(_has_hooks, readers)):
            return False
        return not (self.training and (self.encoder.grad_checkpointing or any(map(_draws, block.modules()))))


def trim_last_block(model: VisionTransformer) -> VisionTransformer:
    """Return a model that shares all parts, and whose last block computes only the tokens that the pool reads.

    Args:
        model: Not changed. It is returned itself if its pool reads patches, or if its encoder merges tokens. The parts
            are shared: pruning one model prunes the other.
    """
    is_plain = type(model) is VisionTransformer and type(model.encoder) is Encoder
    if not is_plain or not isinstance(model.pool, ClassTokenPool):
        return model
    return TrimmedVisionTransformer(model.config, **model.parts()).train(model.training)


def forward_trimmed(block: Block, tokens: Tokens, relation: Relation, num_read: int) -> FirstTokens:
    """Run a pre-norm block for the first `num_read` tokens, which attend to all tokens.

    Args:
        block: The block. Its dropout and drop path must be inactive.
        tokens: The whole sequence, `[batch, tokens, embed_dim]`.
        relation: Rotations of queries and keys, and a bias on the attention scores.
        num_read: Number of tokens to compute, at least 1.
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
