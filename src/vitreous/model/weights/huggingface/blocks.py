"""A part that families share -> its rows: three projections, one table of positions, and what is only written."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.fixed_position import sincos2d, sinusoid
from vitreous.model.weights.table import Codec, Row, Tensors, layer, position_grid, prefix_positions, row, stack

FIXED = ("sinusoidal", "sincos2d", "sincos2d_big_vision")
"""Positions that are computed here, and that transformers keeps in the table of learned ones."""


def attention(our: str, theirs: Sequence[str], output: str, config: ModelConfig) -> list[Row]:
    """Query, key and value apart there, one projection here.

    Args:
        our: Name of the attention.
        theirs: Names of the three projections.
        output: Name of the output projection.
        config: Says which of them have a bias.
    """
    table = [row(f"{our}.qkv.weight", [f"{name}.weight" for name in theirs], stack(3))]
    if config.qkv_bias:
        query, key, value = theirs
        biased = (query, key, value) if config.key_bias else (query, value)
        table += [row(f"{our}.qkv.bias", [f"{name}.bias" for name in biased], stack(len(biased)))]
    return table + layer(f"{our}.proj", output, bias=config.proj_bias)


def positions(config: ModelConfig, theirs: str, *, batched: bool = True) -> Row:
    """The table of positions, those of the prefix first; a fixed one is written out and never read.

    Args:
        config: Its position is `learned`, or one of `FIXED`.
        theirs: The table's name.
        batched: Whether it is `[1, tokens, dim]`, not `[tokens, dim]`.
    """
    if config.position != "learned":
        return written(theirs, lambda: _fixed(config))
    ours, grid = position_grid(config, prefix_positions(config))
    if batched:
        return row(ours, theirs, grid)
    plain = Codec(read=lambda table: grid.read(table[None]), write=lambda *parts: (grid.write(*parts)[0][0],))
    return row(ours, theirs, plain)


def written(theirs: str, make: Callable[[], Tensor]) -> Row:
    """A tensor that transformers' class must have and a Vision Transformer does without."""
    return row((), theirs, Codec(read=_nothing, write=lambda: (make(),)))


def _nothing(theirs: Tensor) -> Tensors:
    return ()


def _fixed(config: ModelConfig) -> Tensor:
    width = config.embed_dim
    match config.position:
        case "sinusoidal":
            table = sinusoid(config.num_patches, width)
        case "sincos2d":
            table = sincos2d(config.grid_size, width)
        case _:
            table = sincos2d(config.grid_size, width, variant="big_vision")
    return torch.cat([table.new_zeros(config.num_prefix_tokens, width), table])[None]
