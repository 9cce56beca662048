"""timm's tensor names <-> ours: one format for `vision_transformer.py` and `deit.py`, one for `eva.py`."""

from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.table import (
    BATCHED,
    VECTOR,
    Codec,
    Format,
    Row,
    Tensors,
    chain,
    kernel,
    layer,
    learned_positions,
    row,
    stack,
    stacked,
)
from vitreous.model.weights.timm.config import THETA_ROWS_FIRST, is_eva, read_config
from vitreous.model.weights.timm.describe import describe_eva, describe_vit


def rows(config: ModelConfig) -> list[Row]:
    """Build the table for `vision_transformer.py`. Distilled models have two heads."""
    table = _rows_outside_blocks(config)
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"blocks.{number}"
        table += [
            *_shared_block_rows(config, our, their),
            *layer(f"{our}.attn.qkv", f"{their}.attn.qkv", bias=config.qkv_bias),
            # A gated MLP is one matrix in DINOv2 and two in AIMv2, the only model that normalizes its patches.
            *_fc1_rows(config, our, their, separate_gate=config.patch_norm),
        ]
        if config.qk_norm:
            for norm in ("q_norm", "k_norm"):
                table += layer(f"{our}.attn.{norm}", f"{their}.attn.{norm}", bias=config.norm == "layer")
        if config.layer_scale:
            table += [row(f"{our}.ls{branch}.gamma", f"{their}.ls{branch}.gamma") for branch in (1, 2)]
    return table


def eva_rows(config: ModelConfig) -> list[Row]:
    """Build the table for `eva.py`: separate query and value biases, a separate gate, another rotary order."""
    table = _rows_outside_blocks(config)
    if config.rotary == "mixed":
        table += [row("relation.freqs", "rope.freqs", _BY_AXIS)]
    reordered = _rotary_order(config)
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"blocks.{number}"
        table += [
            *_shared_block_rows(config, our, their),
            row(f"{our}.attn.qkv.weight", f"{their}.attn.qkv.weight", reordered),
        ]
        if config.qkv_bias and config.key_bias:
            table += [row(f"{our}.attn.qkv.bias", f"{their}.attn.qkv.bias", reordered)]
        elif config.qkv_bias:
            biases = [f"{their}.attn.{which}_bias" for which in "qv"]
            table += [row(f"{our}.attn.qkv.bias", biases, chain(stack(2), _rotary_order(config, stacked=2)))]
        table += _fc1_rows(config, our, their, separate_gate=True)
        if config.layer_scale:
            table += [row(f"{our}.ls{branch}.gamma", f"{their}.gamma_{branch}") for branch in (1, 2)]
    return table


def _rows_outside_blocks(config: ModelConfig) -> list[Row]:
    """Build the rows of everything outside the blocks: patches, tokens, positions, norms, pool and head."""
    norm_bias = config.norm == "layer"
    table = layer("tokenizer.proj", "patch_embed.proj", kernel(config), bias=config.patch_bias)
    table += [row("prefix.class_token", "cls_token", VECTOR)] if config.has_class_token else []
    table += [row("prefix.distill_token", "dist_token", VECTOR)] if config.distill_token else []
    table += [row("prefix.registers", "reg_token", BATCHED)] if config.num_registers else []
    table += [_positions(config)] if config.position == "learned" else []
    for our, their, exists in (
        ("patch_norm", "patch_embed.norm", config.patch_norm),
        ("encoder.norm_pre", "norm_pre", config.embed_norm),
        ("encoder.norm", "norm", config.final_norm),
        ("fc_norm", "fc_norm", config.fc_norm),
    ):
        table += layer(our, their, bias=norm_bias) if exists else []
    if config.pool == "map":
        table += [row("pool.probe", "attn_pool.latent", VECTOR)]
        for part in ("q", "kv", "proj"):
            table += layer(f"pool.{part}", f"attn_pool.{part}")
        table += layer("pool.norm", "attn_pool.norm", bias=norm_bias)
        for part in ("mlp.fc1", "mlp.fc2"):
            table += layer(f"pool.{part}", f"attn_pool.{part}", bias=config.mlp_bias)
    if config.num_classes and config.distill_token:
        return [*table, *layer("head.label", "head"), *layer("head.teacher", "head_dist")]
    return table + (layer("head", "head") if config.num_classes else [])


def _shared_block_rows(config: ModelConfig, our: str, their: str) -> list[Row]:
    """Build the rows of a block that have the same names in both formats."""
    norm_bias = config.norm == "layer"
    return [
        *layer(f"{our}.norm1", f"{their}.norm1", bias=norm_bias),
        *layer(f"{our}.attn.proj", f"{their}.attn.proj", bias=config.proj_bias),
        *layer(f"{our}.norm2", f"{their}.norm2", bias=norm_bias),
        *layer(f"{our}.mlp.fc2", f"{their}.mlp.fc2", bias=config.mlp_bias),
    ]


def _fc1_rows(config: ModelConfig, our: str, their: str, *, separate_gate: bool) -> list[Row]:
    """Build the rows of the first layer of an MLP; a gated MLP may keep gate and value in separate tensors."""
    fc1 = f"{their}.mlp.fc1"
    if config.mlp == "gated" and separate_gate:
        return stacked(f"{our}.mlp.fc1", [f"{fc1}_g", f"{fc1}_x"], bias=config.mlp_bias)
    return layer(f"{our}.mlp.fc1", fc1, bias=config.mlp_bias)


def _positions(config: ModelConfig) -> Row:
    """Build the row of the position table.

    timm gives registers positions if the class token has one, so registers without a position are written with zeros.
    """
    learned = learned_positions(config, "pos_embed")
    prefix, count = learned.ours[:-1], config.num_registers
    if not count or not prefix or "prefix.register_position" in prefix:
        return learned
    start = len(prefix)

    def read(theirs: Tensor) -> Tensors:
        return learned.codec.read(torch.cat([theirs[:, :start], theirs[:, start + count :]], dim=1))

    def write(*tensors: Tensor) -> Tensors:
        (table,) = learned.codec.write(*tensors)
        zeros = table.new_zeros(1, count, table.shape[2])
        return (torch.cat([table[:, :start], zeros, table[:, start:]], dim=1),)

    return replace(learned, codec=Codec(read, write))


def _rotary_order(config: ModelConfig, stacked: int = 3) -> Codec:
    """Reorder the channels of queries and keys in stacked projections from timm's rotary layout to ours.

    We rotate the channel pairs (i, i + half) of a head, as timm's DINOv3 does. timm's other models rotate neighboring
    channels, (2i, 2i + 1); see `THETA_ROWS_FIRST` for the order of the axes. Of the stacked projections, the last one
    belongs to values and is not reordered.
    """
    heads = config.num_heads
    head_dim = config.attn_dim // heads
    order = torch.arange(head_dim)
    if config.rotary in ("axial", "mixed"):
        pairs = order.reshape(-1, 2)
        if config.rotary == "axial" and config.rotary_theta == THETA_ROWS_FIRST:
            pairs = pairs.roll(head_dim // 4, dims=0)
        order = pairs.T.flatten()
    one = (torch.arange(heads)[:, None] * head_dim + order).flatten()
    plain = torch.arange(heads * head_dim)
    places = torch.cat([*[one + part * len(one) for part in range(stacked - 1)], plain + (stacked - 1) * len(one)])
    back = places.argsort()
    return Codec(read=lambda theirs: (theirs[places],), write=lambda ours: (ours[back.to(ours.device)],))


_BY_AXIS = Codec(
    read=lambda theirs: (rearrange(theirs, "two block h f -> block two h f"),),
    write=lambda ours: (rearrange(ours, "block two h f -> two block h f"),),
)

_EITHER = (False, True)
_ALLOWED: dict[str, tuple[Any, ...] | None] = {
    "num_registers": None,
    "head_dim": None,
    "prefix_position": ("all", "class", "none"),
    "patch_bias": _EITHER,
    "patch_norm": _EITHER,
    "embed_norm": _EITHER,
    "qkv_bias": _EITHER,
    "proj_bias": _EITHER,
    "mlp": ("plain", "gated"),
    "mlp_bias": _EITHER,
    "act": ("gelu", "gelu_tanh", "quick_gelu", "silu"),
    "norm": ("layer", "rms"),
    "norm_eps": (1e-6, 1e-5, 1e-12),  # two are timm's; 1e-12 (transformers) differs from 1e-6 only by rounding
    "layer_scale": (0.0, 1e-5),
    "pool": ("token", "mean", "max", "map"),
    "final_norm": _EITHER,
    "fc_norm": _EITHER,
}


def _refuses(config: ModelConfig) -> list[str]:
    """List the choices that modules of timm do not allow together."""
    combined = {
        f"model.head_dim={config.head_dim}": config.attn_dim != config.embed_dim,
        f"model.pool=map with model.mlp={config.mlp}": config.pool == "map" and config.mlp != "plain",
        "model.pool=map with model.mlp_bias=False": config.pool == "map" and not config.mlp_bias,
        "model.fc_norm=True with model.distill_token=True": config.fc_norm and config.distill_token,
    }
    return [choice for choice, applies in combined.items() if applies]


def _eva_refuses(config: ModelConfig) -> list[str]:
    """List the choices that `eva.py` does not allow together: its pool `map` reads all tokens, ours only patches."""
    reads_prefix = config.pool == "map" and config.num_prefix_tokens > 0
    return _refuses(config) + (["model.pool=map with prefix tokens"] if reads_prefix else [])


CHUNKS = (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.")
"""Rename for DINOv2's training code, which divides the blocks into chunks."""
_RENAMES = (
    CHUNKS,
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
PARTS = frozenset(
    ("cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed", "norm_pre", "norm", "fc_norm", "attn_pool",
     "blocks", "rope", "head_dist")
)  # fmt: skip
"""First parts of names that belong to a model."""

_VISION_TRANSFORMER = Format(
    name="timm",
    recognizes=lambda names: {"patch_embed.proj.weight", "pos_embed"} <= names and not is_eva(names),
    read_config=read_config,
    rows=rows,
    allowed=_ALLOWED | {"distill_token": _EITHER, "qk_norm": _EITHER, "norm_order": ("pre", "post")},
    refuses=_refuses,
    renames=_RENAMES,
    skipped={r"^mask_token$|^decoder_": "used only in pre-training"},
    parts=PARTS,
    assumed=("num_heads", "act", "norm_eps", "norm_order", "pool", "prefix_position", "img_size"),
    describe=describe_vit,
)
_EVA = replace(
    _VISION_TRANSFORMER,
    name="timm eva",
    recognizes=is_eva,
    rows=eva_rows,
    refuses=_eva_refuses,
    allowed=_ALLOWED
    | {"position": ("learned", "none"), "rotary": ("none", "axial", "mixed", "dinov3"), "key_bias": _EITHER},
    describe=describe_eva,
)

TIMM = (_VISION_TRANSFORMER, _EVA)
"""The first format that can hold a model is written: `eva.py` for rotary or no positions, or keys without bias."""
