"""A trained model -> a faster model in which each block merges the most similar tokens. ToMe (2210.09461)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vitreous.errors import ConfigError
from vitreous.model.parts.attention import Attention, Heads, KeylessBiasLinear
from vitreous.model.parts.encoder import Block, Encoder, PostNormBlock
from vitreous.model.parts.relation import NO_RELATION, Relation, rotate
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Tokens
from vitreous.wording import plural

MergedTokens = Float[Tensor, "batch merged embed_dim"]
"""Prefix tokens, then tokens that represent one patch or several."""

MergedSizes = Float[Tensor, "batch merged"]
"""How many of the tokens that entered the encoder each remaining one represents."""

Sizes = Float[Tensor, "batch tokens"]
"""How many of the tokens that entered the encoder each token represents."""

Source = Int64[Tensor, "batch tokens"]
"""For each token, the number of the token that it was merged into."""


class Merged(NamedTuple):
    """Assignment of the tokens that entered the encoder to the remaining tokens.

    Attributes:
        source: For each of them, the number of the remaining token that it was merged into.
        sizes: For each remaining token, how many it represents.
    """

    source: Source
    sizes: MergedSizes


class MergingEncoder(Encoder):
    """An encoder that merges tokens between the attention and the MLP of each block.

    A merged token is the average of the n tokens that it represents, and counts n times in every later softmax (the
    proportional attention of ToMe). Rotations and biases are averaged too, so that a score is the mean of the scores
    that it replaces. At the end every patch gets a copy of the token that it was merged into, so every pool and feature
    map works with one token per patch.

    Args:
        encoder: The encoder whose blocks and norms are shared.
        num_merged: For each block, the number of tokens that disappear. A block merges at most half of the remaining
            patches.
        num_prefix_tokens: Number of tokens before the patches, which never merge.
    """

    def __init__(self, encoder: Encoder, *, num_merged: Sequence[int], num_prefix_tokens: int) -> None:
        super().__init__(encoder.blocks, norm=encoder.norm, norm_pre=encoder.norm_pre, pos_drop_rate=encoder.drop.p)
        self.grad_checkpointing = encoder.grad_checkpointing
        self.num_merged = tuple(num_merged)
        self.num_prefix_tokens = num_prefix_tokens

    def forward(
        self,
        tokens: Tokens,
        relations: Sequence[Relation] | None = None,
        *,
        outputs: dict[int, Tensor | None] | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Pass the tokens through the blocks and the final norm, as `Encoder.forward` does with the same arguments."""
        merged: Merged | None = None
        for number, (tokens, merged) in enumerate(self.merging_steps(tokens, relations)):  # noqa: B020
            if outputs is not None and number in outputs:
                outputs[number] = unmerge(tokens, merged)
            if depth is not None and number == depth - 1:
                break
        return unmerge(self.norm(tokens), merged)

    def merging_steps(
        self, tokens: Tokens, relations: Sequence[Relation] | None = None
    ) -> Iterator[tuple[MergedTokens, Merged | None]]:
        """Yield, after each block, the remaining tokens and what they represent (None before the first merge)."""
        left: Tensor = self.norm_pre(self.drop(tokens))
        merged: Merged | None = None
        for number, block in enumerate(cast("Iterable[Block]", self.blocks)):
            relation = relations[number] if relations else NO_RELATION
            most = (left.shape[1] - self.num_prefix_tokens) // 2
            arguments = (block, left, merged, relation, min(self.num_merged[number], most), self.num_prefix_tokens)
            if self.grad_checkpointing and self.training:
                left, merged = checkpoint(_merging_block, *arguments, use_reentrant=False)
            else:
                left, merged = _merging_block(*arguments)
            yield left, merged


def merge_tokens(model: VisionTransformer, num_merged: int | Sequence[int]) -> VisionTransformer:
    """Return a model that shares the weights and merges the most similar patches in each block.

    No training is needed. The more tokens merge, the faster the model and the lower its accuracy.

    Args:
        model: Not changed. If it merges already, the new numbers replace the old ones.
        num_merged: Number of tokens that disappear in each block, or a list with one number per block. A block can
            merge at most half of the remaining patches, because patches merge in pairs. For smaller images, which have
            fewer patches, the numbers are reduced to this limit. 0 changes nothing.

    Returns:
        A model in the same mode (training or evaluation) with the same weights. Saving it saves the original model.

    Raises:
        ConfigError: The list does not have one number per block, or a number is negative or more than half of the
            remaining patches.

    Source:
        Bolya et al. 2022, section 3 (2210.09461). Their code replaces the forward pass of the block and so drops
        LayerScale and additional norms; here the block keeps them. They compare plain keys. Here keys are compared
        after norm and rotation, which makes no difference in models without them. Prefix tokens are not merged. With
        `model.locality`, a merged token does not attend to itself.

    Example:
        >>> import torch
        >>> from vitreous.model import create_model, merge_tokens
        >>> model = create_model("vit_tiny_patch16_224", num_classes=5).eval()
        >>> faster = merge_tokens(model, 8)
        >>> faster(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 5])
    """
    plan = _planned(model, num_merged)
    encoder = MergingEncoder(model.encoder, num_merged=plan, num_prefix_tokens=model.num_prefix_tokens)
    parts = model.parts()
    parts["encoder"] = encoder
    return VisionTransformer(model.config, **parts).train(model.training)


@torch.no_grad()
def match(keys: Heads, num_merged: int, num_prefix_tokens: int) -> Source:
    """Find the `num_merged` most similar pairs of patches by bipartite soft matching.

    Patches are assigned alternately to two sets. Each patch of the first set is paired with the most similar patch of
    the second set, and the pairs with the highest similarity merge.

    Args:
        keys: Keys of the attention of the block. Two patches are as similar as the cosine of their keys, which are
            averaged over heads.
        num_merged: Number of pairs to merge, at most half of the patches.
        num_prefix_tokens: Number of tokens before the patches; they keep their numbers.

    Returns:
        For each token, its number after the merge. The order is that of ToMe's code: prefix tokens, the rest of the
        first set, the second set.
    """
    batch, _, length, _ = keys.shape
    features = F.normalize(keys.mean(dim=1), dim=-1)
    first = torch.arange(num_prefix_tokens + num_prefix_tokens % 2, length, 2, device=keys.device)
    second = torch.arange(num_prefix_tokens + 1 - num_prefix_tokens % 2, length, 2, device=keys.device)
    similarity, partner = (features[:, first] @ features[:, second].transpose(1, 2)).max(dim=-1)
    leaving = torch.zeros_like(partner).scatter(1, similarity.topk(num_merged, dim=1).indices, 1)
    place_of_second = num_prefix_tokens + first.shape[0] - num_merged
    source = torch.arange(length, device=keys.device).repeat(batch, 1)
    source[:, first] = torch.where(
        leaving == 1, place_of_second + partner, num_prefix_tokens - 1 + (1 - leaving).cumsum(dim=1)
    )
    source[:, second] = place_of_second + torch.arange(second.shape[0], device=keys.device)
    return source


def average(
    values: Float[Tensor, "batches heads tokens width"], source: Source, sizes: MergedSizes, weights: Sizes
) -> Float[Tensor, "batch heads merged width"]:
    """Average the rows of tokens that merge.

    Args:
        values: One row per token; `batches` is 1 if all images share them.
        source: For each token, the number of the token that it is merged into.
        sizes: For each merged token, the sum of the weights of its tokens.
        weights: For each token, its weight in the average.
    """
    relative = (weights / sizes.gather(1, source)).to(values.dtype)
    weighted = values * rearrange(relative, "b n -> b 1 n 1")
    index = rearrange(source, "b n -> b 1 n 1").expand(weighted.shape)
    empty = weighted.new_zeros(*weighted.shape[:2], sizes.shape[1], weighted.shape[3])
    return empty.scatter_add(2, index, weighted)


def merged_relation(relation: Relation, merged: Merged) -> Relation:
    """Return the relation of merged tokens: rotations and biases are averaged, and log(size) is added to the bias."""
    source, sizes = merged
    ones = sizes.new_ones(source.shape)
    cos, sin, bias = (None if values is None else average(values, source, sizes, ones) for values in relation)
    if bias is not None:
        bias = average(bias.transpose(2, 3), source, sizes, ones).transpose(2, 3)
    # Adding log(n) to the score of a key makes it count n times in the softmax.
    counts = rearrange(sizes.log(), "b n -> b 1 1 n")
    return Relation(cos, sin, counts if bias is None else bias + counts)


def unmerge(tokens: MergedTokens, merged: Merged | None) -> Tokens:
    """Return, for each token that entered the encoder, a copy of the token that it was merged into."""
    if merged is None:
        return tokens
    return tokens.gather(1, rearrange(merged.source, "b n -> b n 1").expand(-1, -1, tokens.shape[2]))


def _merging_block(
    block: Block, tokens: Tokens, merged: Merged | None, relation: Relation, num_merged: int, num_prefix_tokens: int
) -> tuple[MergedTokens, Merged | None]:
    """Run a block and merge tokens between its attention and its MLP."""
    if merged is not None:
        relation = merged_relation(relation, merged)
    if not num_merged:
        return block(tokens, relation), merged
    normed = tokens if isinstance(block, PostNormBlock) else block.norm1(tokens)
    source = match(_keys(block.attn, normed, relation), num_merged, num_prefix_tokens)
    tokens = block.drop_path(tokens, block.attend, relation)
    precise = torch.promote_types(tokens.dtype, torch.float32)
    weights = torch.ones(source.shape, dtype=precise, device=tokens.device) if merged is None else merged.sizes
    length = source.shape[1] - num_merged
    sizes = weights.new_zeros(weights.shape[0], length).scatter_add(1, source, weights)
    tokens = average(tokens[:, None], source, sizes, weights)[:, 0]
    since_start = source if merged is None else source.gather(1, merged.source)
    return block.drop_path(tokens, block.transform), Merged(since_start, sizes)


def _keys(attn: Attention, tokens: Tokens, relation: Relation) -> Heads:
    """Return the keys as `attn.project` does, without computing queries and values."""
    if not isinstance(attn.qkv, nn.Linear):  # a layer with a low-rank update
        return attn.project(tokens, relation)[1]
    inner = attn.proj.in_features
    has_bias = attn.qkv.bias is not None and not isinstance(attn.qkv, KeylessBiasLinear)
    bias = attn.qkv.bias[inner : 2 * inner] if has_bias else None
    projected = F.linear(tokens, attn.qkv.weight[inner : 2 * inner], bias)
    keys = rearrange(projected, "b n (h d) -> b h n d", h=attn.num_heads)
    return rotate(keys if attn.k_norm is None else attn.k_norm(keys), relation)


def _planned(model: VisionTransformer, num_merged: int | Sequence[int]) -> list[int]:
    """Return the number of merges of each block. Raises ConfigError if one exceeds half of the patches left to it."""
    depth, left = len(model.encoder.blocks), model.config.num_patches
    plan: list[Any] = [num_merged] * depth if isinstance(num_merged, int) else list(num_merged)
    if len(plan) != depth:
        raise ConfigError(
            f"num_merged={plan}: gives {plural(len(plan), 'number')} for {plural(depth, 'block')}; give one per block"
        )
    for block, number in enumerate(plan):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= left // 2:
            raise ConfigError(
                f"num_merged={number}: block {block} has {left} patches and merges 0 to {left // 2} of them; "
                "use a number in that range, or fewer in earlier blocks"
            )
        left -= number
    return plan
