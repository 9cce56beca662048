"""A model whose pool reads only the class token -> the same model with a last block that computes only this token.

The pool reads one token of the last block, so only that one needs a query and goes through the MLP. The logits and
gradients are the same up to rounding; `benchmarks/trim.py` measures what it saves.
"""

from typing import cast

from torch import nn

from vitreous.model.parts.encoder import Block
from vitreous.model.parts.pool import ClassTokenPool
from vitreous.model.parts.relation import NO_RELATION, Relation
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Features, FirstTokens, Images, Logits, Tokens


class TrimmedVisionTransformer(VisionTransformer):
    """A VisionTransformer that computes in the last block only the tokens that the pool reads.

    `forward_features` and all methods that return tokens still compute every token. So do `forward` and `pooled` where
    the difference would show: with hooks in the last block, or while dropout, drop path or gradient checkpointing is
    active.
    """

    def forward(self, images: Images) -> Logits:
        """Return the logits of each class; see `VisionTransformer.forward`."""
        return self.head(self.pooled(images))

    def pooled(self, images: Images) -> Features:
        """Return the features of images; see `Backbone.pooled`."""
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
        """Return True if the only difference is rounding: no hook misses tokens, nothing draws other numbers."""
        if type(block) is not Block or any(map(_has_hooks, (self.encoder, self.encoder.norm, *block.modules()))):
            return False
        return not (self.training and (self.encoder.grad_checkpointing or any(map(_draws, block.modules()))))


def trim_last_block(model: VisionTransformer) -> VisionTransformer:
    """Return a model that shares all parts and computes in the last block only the tokens that the pool reads.

    Args:
        model: The model, which is not changed. It is returned itself if its pool reads patches.
    """
    if type(model) is not VisionTransformer or not isinstance(model.pool, ClassTokenPool):
        return model
    return TrimmedVisionTransformer(model.config, **model.parts()).train(model.training)


def forward_trimmed(block: Block, tokens: Tokens, relation: Relation, num_read: int) -> FirstTokens:
    """Run a pre-norm block for the first `num_read` tokens, which still attend to all of them.

    Args:
        block: The block, without dropout or drop path.
        tokens: The whole sequence.
        relation: What the attention takes in addition to tokens.
        num_read: At least 1.
    """
    normed, first = block.norm1(tokens), tokens[:, :num_read]
    queries, keys, values = block.attn.project(normed, relation)
    bias = None if relation.bias is None else relation.bias[:, :, :num_read]
    attended = block.attn.attend(queries[:, :, :num_read], keys, values, bias)
    first = first + block.ls1(block.attn.output(normed[:, :num_read], attended))
    return first + block.transform(first)


def _has_hooks(module: nn.Module) -> bool:
    """Return True if anything is called with the input or output of this very module, forward or backward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(map(len, hooks))


def _draws(module: nn.Module) -> bool:
    """Return True if the module draws random numbers in training."""
    return any(getattr(module, rate, 0.0) for rate in ("p", "attn_drop_rate", "rate"))
