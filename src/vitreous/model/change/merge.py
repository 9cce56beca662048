"""A trained model -> the same model with fewer tokens: each block merges the most similar ones. ToMe (2210.09461)."""

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
from vitreous.tensors import Images, Tokens

MergedTokens = Float[Tensor, "batch merged embed_dim"]
"""Prefix tokens, then tokens that represent one patch or several."""

MergedSizes = Float[Tensor, "batch merged"]
"""How many of the tokens that entered the encoder each remaining one represents."""

Sizes = Float[Tensor, "batch tokens"]
"""How many of the tokens that entered the encoder each token represents."""

Source = Int64[Tensor, "batch tokens"]
"""For each token, the number of the token that it was merged into."""


class Merged(NamedTuple):
    """What happened to the tokens that entered the encoder.

    Attributes:
        source: For each of them, the number of the remaining token that it was merged into.
        sizes: For each remaining token, how many it represents.
    """

    source: Source
    sizes: MergedSizes


class MergingEncoder(Encoder):
    """An encoder that merges tokens between the attention and the MLP of each block.

    A merged token is the average of the n tokens it represents, and counts n times in every later softmax (ToMe's
    proportional attention). Rotations and biases are averaged too, so that a score is the mean of the scores that it
    replaces. At the end every patch receives the token that it was merged into: a pool of any kind or a feature map
    sees one token per patch, and the mean over them is the mean over patches.

    Args:
        encoder: The encoder whose blocks and norms are shared.
        num_merged: For each block, how many tokens disappear; never more than half of the remaining patches.
        num_prefix_tokens: Tokens before the patches, which never merge.
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
        """Pass the tokens through the blocks and the final norm; arguments and result as for `Encoder.forward`."""
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
        """Yield after each block the remaining tokens and what they represent; None before the first merge."""
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

    No training is needed. Later layers have fewer tokens to compute; the accuracy lost grows with the number of merges.

    Args:
        model: The model, which is not changed. It may be the result of an earlier call; only the new number counts.
        num_merged: How many tokens disappear in each block, or one number per block. Each merge pairs two patches, so
            a block merges at most half of the remaining ones. For images smaller than the model's own, which leave
            fewer patches, it merges that half. 0 changes nothing.

    Returns:
        A model in the same mode, without weights of its own. Saving it saves the original model.

    Raises:
        ConfigError: Not one number per block, a negative number, or more than half of the remaining patches.

    Source:
        Bolya et al. 2022, section 3 (2210.09461). Their code replaces the forward of the block and loses LayerScale and
        other norms; here the block keeps them. They compare plain keys; here keys are compared after their norm and
        rotation, which is the same in models without either. Prefix tokens are not merged. With
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
def token_groups(model: VisionTransformer, images: Images) -> Int64[Tensor, "batch blocks patches"]:
    """Return, after each block of a merging model, the number of the merged token that each patch is part of.

    Args:
        model: A model returned by `merge_tokens`.
        images: As for its forward.

    Returns:
        Patches row by row. Those with equal numbers are one token; numbers start at 0 after the prefix.

    Raises:
        ConfigError: The model does not merge tokens.
    """
    if not isinstance(model.encoder, MergingEncoder):
        raise ConfigError(f"model.encoder={type(model.encoder).__name__}: merges nothing; use merge_tokens(model, 8)")
    tokens, relations = model.embed(images)
    unmerged = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    sources = [unmerged if m is None else m.source for _, m in model.encoder.merging_steps(tokens, relations)]
    count = model.num_prefix_tokens
    return torch.stack(sources, dim=1)[:, :, count:] - count


@torch.no_grad()
def match(keys: Heads, num_merged: int, num_prefix_tokens: int) -> Source:
    """Find the `num_merged` most similar pairs of patches by bipartite soft matching.

    Patches are split alternately into two sets by their place in the sequence. Each patch of the first set finds the
    most similar one in the second; the pairs with the highest similarity merge.

    Args:
        keys: Keys of the attention of the block; the cosine of their means over heads is the similarity.
        num_merged: At most half of the patches.
        num_prefix_tokens: Tokens before the patches; they keep their numbers.

    Returns:
        For each token its number after the merge, in the order of ToMe's code: prefix, rest of the first set, second
        set.
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
    """Average the rows of the tokens that were merged.

    Args:
        values: One row per token; `batches` is 1 if all images share them.
        source: The merged token of each token.
        sizes: Sum of the weights of each merged token.
        weights: Weight of each token.
    """
    relative = (weights / sizes.gather(1, source)).to(values.dtype)
    weighted = values * rearrange(relative, "b n -> b 1 n 1")
    index = rearrange(source, "b n -> b 1 n 1").expand(weighted.shape)
    empty = weighted.new_zeros(*weighted.shape[:2], sizes.shape[1], weighted.shape[3])
    return empty.scatter_add(2, index, weighted)


def merged_relation(relation: Relation, merged: Merged) -> Relation:
    """Return the relation of merged tokens: averaged rotations and biases, and the logarithm of the sizes as a bias."""
    source, sizes = merged
    ones = sizes.new_ones(source.shape)
    cos, sin, bias = (None if values is None else average(values, source, sizes, ones) for values in relation)
    if bias is not None:
        bias = average(bias.transpose(2, 3), source, sizes, ones).transpose(2, 3)
    # A key that represents n tokens counts n times in the softmax.
    counts = rearrange(sizes.log(), "b n -> b 1 1 n")
    return Relation(cos, sin, counts if bias is None else bias + counts)


def unmerge(tokens: MergedTokens, merged: Merged | None) -> Tokens:
    """Return one token for each that entered the encoder: the one that it was merged into."""
    if merged is None:
        return tokens
    return tokens.gather(1, rearrange(merged.source, "b n -> b n 1").expand(-1, -1, tokens.shape[2]))


def _merging_block(
    block: Block, tokens: Tokens, merged: Merged | None, relation: Relation, num_merged: int, num_prefix_tokens: int
) -> tuple[MergedTokens, Merged | None]:
    """Run a block, and merge tokens between its attention and its MLP."""
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
    """Return one number per block, each at most half of the patches that earlier blocks leave. Raises ConfigError."""
    depth, left = len(model.encoder.blocks), model.config.num_patches
    plan: list[Any] = [num_merged] * depth if isinstance(num_merged, int) else list(num_merged)
    if len(plan) != depth:
        raise ConfigError(f"num_merged={plan}: gives {len(plan)} numbers for {depth} blocks; give one per block")
    for block, number in enumerate(plan):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= left // 2:
            raise ConfigError(
                f"num_merged={number}: block {block} has {left} patches and merges 0 to {left // 2} of them; "
                "use a number in that range, or fewer in earlier blocks"
            )
        left -= number
    return plan
