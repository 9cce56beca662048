"""A trained model -> the same with less to do: in each block, tokens most alike become one. ToMe (2210.09461)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vitreous.errors import ConfigError
from vitreous.model.parts.attention import Heads
from vitreous.model.parts.encoder import Block, Encoder
from vitreous.model.parts.relation import Relation, Sizes
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import FirstTokens, Images, Tokens

MergedTokens = Float[Tensor, "batch merged embed_dim"]
"""Prefix tokens, then tokens that stand for one patch or several."""

MergedSizes = Float[Tensor, "batch merged"]
"""How many of the tokens that entered the encoder each one that is left stands for."""

Source = Int64[Tensor, "batch tokens"]
"""For each token, the number of the one that it became part of."""


class Merged(NamedTuple):
    """What became of the tokens that entered the encoder.

    Attributes:
        source: For each of them, the number of the token that it became part of.
        sizes: For each token that is left, how many it stands for.
    """

    source: Source
    sizes: MergedSizes


class MergingEncoder(Encoder):
    """An encoder in which some tokens become one between a block's attention and its MLP.

    Merged tokens are averages over all that they stand for, weigh as much as those in every later softmax, and stand
    at their mean place: rotations and biases are averaged too, so that a score is the mean of the scores it replaces.
    In the end every patch is given the token that it became part of. So whatever follows, a pool of any kind, a map
    of features, sees one token per patch in its place, and the mean over them is the mean over patches.

    Args:
        encoder: Its blocks and norms are shared.
        num_merged: For each block, how many tokens disappear; never more than half of the patches that are left.
        num_prefix_tokens: Tokens before the patches, which never merge.
    """

    def __init__(self, encoder: Encoder, *, num_merged: Sequence[int], num_prefix_tokens: int) -> None:
        super().__init__(encoder.blocks, norm=encoder.norm, norm_pre=encoder.norm_pre, pos_drop_rate=encoder.drop.p)
        self.grad_checkpointing = encoder.grad_checkpointing
        self.num_merged = tuple(num_merged)
        self.num_prefix_tokens = num_prefix_tokens

    def forward(
        self, tokens: Tokens, relations: Sequence[Relation] | None = None, num_read: int | None = None
    ) -> FirstTokens:
        """Pass the tokens through every block, fewer in each, and give each place its own at the end.

        Args:
            tokens: With prefix.
            relations: One per block; None where attention takes tokens alone.
            num_read: How many will be read, from the first; None: all.

        Raises:
            ConfigError: Several images in one sequence, which would merge with each other.
        """
        *_, (last, merged) = self.merging_steps(tokens, relations)
        return spread(self.norm(last), merged)[:, :num_read]

    def steps(self, tokens: Tokens, relations: Sequence[Relation] | None = None) -> Iterator[Tokens]:
        """The tokens after each block, as many as came in, before the last norm. Raises as `forward` does."""
        for left, merged in self.merging_steps(tokens, relations):
            yield spread(left, merged)

    def merging_steps(
        self, tokens: Tokens, relations: Sequence[Relation] | None = None
    ) -> Iterator[tuple[MergedTokens, Merged | None]]:
        """The tokens that are left after each block, and what they stand for; None before the first merge."""
        left: Tensor = self.norm_pre(self.drop(tokens))
        merged: Merged | None = None
        for number, block in enumerate(cast("Iterable[Block]", self.blocks)):
            relation = relations[number] if relations else Relation()
            most = (left.shape[1] - self.num_prefix_tokens) // 2
            step = (block, left, merged, relation, min(self.num_merged[number], most), self.num_prefix_tokens)
            if self.grad_checkpointing and self.training:
                left, merged = checkpoint(_step, *step, use_reentrant=False)
            else:
                left, merged = _step(*step)
            yield left, merged


def merge_tokens(model: VisionTransformer, num_merged: int | Sequence[int]) -> VisionTransformer:
    """A model -> one that shares its weights, and in each block merges the patches most alike.

    No training is needed. What follows a merge has fewer tokens to compute; what is lost grows with their number.

    Args:
        model: Stays as it is. A merging model may be given again, for another number.
        num_merged: Tokens that disappear in each block, or one number per block. Each merge pairs two patches, so a
            block takes half of those left at most; where images smaller than the model's own leave fewer, it takes
            that half. 0 changes nothing.

    Returns:
        A model in the same mode, without weights of its own; saved, it is the model that it was made from.

    Raises:
        ConfigError: Not one number per block, a negative one, or more than half of the patches left.

    Source:
        Bolya et al. 2022, section 3 (2210.09461). Theirs replaces the block's forward, and with it loses LayerScale and
        other norms; here the block runs its own two halves. Theirs compares plain keys; here keys as the queries meet
        them, normalised and turned, which is the same where nothing does that. Prefix tokens are neither merged nor
        merged into. In locality attention a merged token sees those that it stands for but one: itself.
    """
    plan = _planned(model, num_merged)
    encoder = MergingEncoder(model.encoder, num_merged=plan, num_prefix_tokens=model.num_prefix_tokens)
    return VisionTransformer(
        model.config,
        tokenizer=model.tokenizer,
        patch_norm=model.patch_norm,
        position=model.position,
        patch_drop=model.patch_drop,
        prefix=model.prefix,
        relation=model.relation,
        encoder=encoder,
        pool=model.pool,
        fc_norm=model.fc_norm,
        head=model.head,
    ).train(model.training)


@torch.no_grad()
def token_groups(model: VisionTransformer, images: Images) -> Int64[Tensor, "batch blocks patches"]:
    """A merging model, images -> after each block, the number of the merged token that each patch is part of.

    Args:
        model: What `merge_tokens` gave.
        images: As for its forward.

    Returns:
        Patches row by row; those with equal numbers are one token, counted from 0 without the prefix.

    Raises:
        ConfigError: A model that does not merge.
    """
    if not isinstance(model.encoder, MergingEncoder):
        raise ConfigError(f"model.encoder={type(model.encoder).__name__}: merges nothing; use merge_tokens(model, 8)")
    tokens, relations = model.embed(images)
    alone = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    sources = [alone if m is None else m.source for _, m in model.encoder.merging_steps(tokens, relations)]
    count = model.num_prefix_tokens
    return torch.stack(sources, dim=1)[:, :, count:] - count


@torch.no_grad()
def match(keys: Heads, num_merged: int, num_prefix_tokens: int) -> Source:
    """Keys -> for each token its number once the `num_merged` closest pairs are one: bipartite soft matching.

    Patches are dealt out alternately to two sets by their place in the sequence. Each of the first set finds its most
    similar one in the second, and those with the highest similarity join it.

    Args:
        keys: Of the block's attention; their mean over heads is compared, by the cosine.
        num_merged: At most half of the patches.
        num_prefix_tokens: Tokens before the patches; they keep their numbers.

    Returns:
        Numbers in the order of ToMe's code: prefix, what is left of the first set, the second set.
    """
    batch, _, length, _ = keys.shape
    features = F.normalize(keys.mean(dim=1), dim=-1)
    first = torch.arange(num_prefix_tokens + num_prefix_tokens % 2, length, 2, device=keys.device)
    second = torch.arange(num_prefix_tokens + 1 - num_prefix_tokens % 2, length, 2, device=keys.device)
    likeness, partner = (features[:, first] @ features[:, second].transpose(1, 2)).max(dim=-1)
    leaving = torch.zeros_like(partner).scatter(1, likeness.topk(num_merged, dim=1).indices, 1)
    place_of_second = num_prefix_tokens + first.shape[0] - num_merged
    source = torch.arange(length, device=keys.device).repeat(batch, 1)
    source[:, first] = torch.where(
        leaving == 1, place_of_second + partner, num_prefix_tokens - 1 + (1 - leaving).cumsum(dim=1)
    )
    source[:, second] = place_of_second + torch.arange(second.shape[0], device=keys.device)
    return source


def average(
    values: Float[Tensor, "batches heads tokens width"], source: Source, sizes: MergedSizes, shares: Sizes
) -> Float[Tensor, "batch heads merged width"]:
    """One row per token -> one row per merged token: their mean, each weighed by how many it stands for.

    Args:
        values: 1 for `batches` where all images have the same.
        source: Which merged token each becomes part of.
        sizes: How many each merged one stands for.
        shares: How many each stands for itself.
    """
    weights = (shares / sizes.gather(1, source)).to(values.dtype)
    weighted = values * rearrange(weights, "b n -> b 1 n 1")
    index = rearrange(source, "b n -> b 1 n 1").expand(weighted.shape)
    empty = weighted.new_zeros(*weighted.shape[:2], sizes.shape[1], weighted.shape[3])
    return empty.scatter_add(2, index, weighted)


def related(relation: Relation, merged: Merged) -> Relation:
    """What attention takes beside merged tokens: the mean of what it took beside those that they stand for."""
    source, sizes = merged
    ones = sizes.new_ones(source.shape)
    cos, sin, bias = (
        None if values is None else average(values, source, sizes, ones)
        for values in (relation.cos, relation.sin, relation.bias)
    )
    if bias is not None:
        bias = average(bias.transpose(2, 3), source, sizes, ones).transpose(2, 3)
    return Relation(cos, sin, bias, sizes=sizes)


def spread(tokens: MergedTokens, merged: Merged | None) -> Tokens:
    """Merged tokens -> one for each that came in: the one that it became part of."""
    if merged is None:
        return tokens
    return tokens.gather(1, rearrange(merged.source, "b n -> b n 1").expand(-1, -1, tokens.shape[2]))


def _step(
    block: Block, tokens: Tokens, merged: Merged | None, relation: Relation, num_merged: int, num_prefix_tokens: int
) -> tuple[MergedTokens, Merged | None]:
    """One block, with its merge between the halves."""
    if merged is not None:
        relation = related(relation, merged)
    if not num_merged:
        return block(tokens, relation), merged
    tokens, keys = block.look_with_keys(tokens, relation)
    source = match(keys, num_merged, num_prefix_tokens)
    precise = torch.promote_types(tokens.dtype, torch.float32)
    shares = torch.ones(source.shape, dtype=precise, device=tokens.device) if merged is None else merged.sizes
    length = source.shape[1] - num_merged
    sizes = shares.new_zeros(shares.shape[0], length).scatter_add(1, source, shares)
    tokens = average(tokens[:, None], source, sizes, shares)[:, 0]
    since_start = source if merged is None else source.gather(1, merged.source)
    return block.think(tokens), Merged(since_start, sizes)


def _planned(model: VisionTransformer, num_merged: int | Sequence[int]) -> list[int]:
    """One number per block, each within what the blocks before it leave of an image of the model's own size."""
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
