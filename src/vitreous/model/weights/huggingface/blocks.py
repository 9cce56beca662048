"""Parts that several families share -> rows of their tables."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.fixed_position import sincos2d, sinusoid
from vitreous.model.weights.table import Codec, Row, layer, learned_positions, row, stack

ATTENTION_RENAMES = (
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
"""Names in memory since version 5 -> names on disk."""
FIXED = ("sinusoidal", "sincos2d", "sincos2d_big_vision")
"""Positions that we compute, and that transformers stores in its table of learned positions."""


def attention(our: str, theirs: Sequence[str], output: str, config: ModelConfig) -> list[Row]:
    """Build the rows of an attention with separate projections of query, key and value, which are one in our model.

    The configuration decides which projections have a bias.
    """
    table = [row(f"{our}.qkv.weight", [f"{name}.weight" for name in theirs], stack(3))]
    if config.qkv_bias:
        query, key, value = theirs
        biased = (query, key, value) if config.key_bias else (query, value)
        table += [row(f"{our}.qkv.bias", [f"{name}.bias" for name in biased], stack(len(biased)))]
    return table + layer(f"{our}.proj", output, bias=config.proj_bias)


def positions(config: ModelConfig, theirs: str, *, batched: bool = True) -> Row:
    """Build the row of the position table, prefix tokens first. A fixed table is written, and never read.

    The table is `[1, tokens, dim]`, or `[tokens, dim]` unless it is batched.
    """
    if config.position != "learned":
        return write_only(theirs, lambda: _fixed_positions(config))
    return learned_positions(config, theirs, batched=batched)


def write_only(theirs: str, make: Callable[[], Tensor]) -> Row:
    """Build the row of a tensor that the other library requires, and that our model does not have."""
    return row((), theirs, Codec(read=lambda theirs: (), write=lambda: (make(),)))


def _fixed_positions(config: ModelConfig) -> Tensor:
    width = config.embed_dim
    if config.position == "sinusoidal":
        table = sinusoid(config.num_patches, width)
    else:
        table = sincos2d(config.grid_size, width, variant="mae" if config.position == "sincos2d" else "big_vision")
    return torch.cat([table.new_zeros(config.num_prefix_tokens, width), table])[None]
