"""timm's names -> ours: one format for `vision_transformer.py` and `deit.py`, one for the rotary models of `eva.py`."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.table import (
    LISTED,
    VECTOR,
    Codec,
    Format,
    Row,
    Tensors,
    kernel,
    layer,
    position_grid,
    prefix_positions,
    row,
    stack,
)
from vitreous.model.weights.timm_config import is_eva, read_config

_THETA_ROWS_FIRST = 10_000.0  # timm's default base, with which it counts rows first; RoPE-ViT's 100 comes with columns


def rows(config: ModelConfig) -> list[Row]:
    """The table of `vision_transformer.py`; distilled models have two heads."""
    table = _outside(config)
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"blocks.{number}"
        table += [
            *_branches(config, our, their),
            *layer(f"{our}.attn.qkv", f"{their}.attn.qkv", bias=config.qkv_bias),
            # DINOv2's gate and value are one matrix; AIMv2, which norms its patches, has two.
            *_widening(config, our, their, apart=config.patch_norm),
        ]
        if config.qk_norm:
            for norm in ("q_norm", "k_norm"):
                table += layer(f"{our}.attn.{norm}", f"{their}.attn.{norm}", bias=config.norm == "layer")
        if config.layer_scale:
            table += [row(f"{our}.ls{branch}.gamma", f"{their}.ls{branch}.gamma") for branch in (1, 2)]
    return table


def eva_rows(config: ModelConfig) -> list[Row]:
    """The table of `eva.py`: keys without bias apart from the matrix, gate apart from value, neighbours that turn."""
    table = _outside(config)
    if config.rotary == "mixed":
        table += [row("relation.freqs", "rope.freqs", _BY_AXIS)]
    turned = _neighbours(config)
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"blocks.{number}"
        table += [*_branches(config, our, their), row(f"{our}.attn.qkv.weight", f"{their}.attn.qkv.weight", turned)]
        if config.qkv_bias and config.key_bias:
            table += [row(f"{our}.attn.qkv.bias", f"{their}.attn.qkv.bias", turned)]
        elif config.qkv_bias:
            apart = [f"{their}.attn.{which}_bias" for which in "qv"]
            table += [row(f"{our}.attn.qkv.bias", apart, _both(stack(2), _neighbours(config, of=2)))]
        table += _widening(config, our, their, apart=True)
        if config.layer_scale:
            table += [row(f"{our}.ls{branch}.gamma", f"{their}.gamma_{branch}") for branch in (1, 2)]
    return table


def _outside(config: ModelConfig) -> list[Row]:
    """What is no block: tokens, positions, patches, norms, pool and head."""
    norm_bias = config.norm == "layer"
    table = layer("tokenizer.proj", "patch_embed.proj", kernel(config), bias=config.patch_bias)
    table += [row("prefix.class_token", "cls_token", VECTOR)] if config.has_class_token else []
    table += [row("prefix.distill_token", "dist_token", VECTOR)] if config.distill_token else []
    table += [row("prefix.registers", "reg_token", LISTED)] if config.num_registers else []
    table += [_positions(config)] if config.position == "learned" else []
    norms = {
        "patch_norm": "patch_embed.norm", "encoder.norm_pre": "norm_pre", "encoder.norm": "norm", "fc_norm": "fc_norm"
    }  # fmt: skip
    present = (config.patch_norm, config.embed_norm, config.final_norm, config.fc_norm)
    for (our, their), there in zip(norms.items(), present, strict=True):
        table += layer(our, their, bias=norm_bias) if there else []
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


def _branches(config: ModelConfig, our: str, their: str) -> list[Row]:
    """What the blocks of both files name alike."""
    norm_bias = config.norm == "layer"
    return [
        *layer(f"{our}.norm1", f"{their}.norm1", bias=norm_bias),
        *layer(f"{our}.attn.proj", f"{their}.attn.proj", bias=config.proj_bias),
        *layer(f"{our}.norm2", f"{their}.norm2", bias=norm_bias),
        *layer(f"{our}.mlp.fc2", f"{their}.mlp.fc2", bias=config.mlp_bias),
    ]


def _widening(config: ModelConfig, our: str, their: str, *, apart: bool) -> list[Row]:
    """The first layer of a block's MLP; where it is gated, gate and value may stand `apart`."""
    kinds = ("weight", "bias") if config.mlp_bias else ("weight",)
    if config.mlp != "gated" or not apart:
        return [row(f"{our}.mlp.fc1.{kind}", f"{their}.mlp.fc1.{kind}") for kind in kinds]
    return [
        row(f"{our}.mlp.fc1.{kind}", [f"{their}.mlp.fc1_{which}.{kind}" for which in "gx"], stack(2)) for kind in kinds
    ]


def _positions(config: ModelConfig) -> Row:
    """The position table; timm numbers registers where it numbers the class token, so they get zeros if need be."""
    ours, grid = position_grid(config, prefix := prefix_positions(config))
    count = config.num_registers if prefix and "prefix.register_position" not in prefix else 0
    if not count:
        return row(ours, "pos_embed", grid)
    start = len(prefix)

    def read(theirs: Tensor) -> Tensors:
        return grid.read(torch.cat([theirs[:, :start], theirs[:, start + count :]], dim=1))

    def write(*tensors: Tensor) -> Tensors:
        (table,) = grid.write(*tensors)
        zeros = table.new_zeros(1, count, table.shape[2])
        return (torch.cat([table[:, :start], zeros, table[:, start:]], dim=1),)

    return row(ours, "pos_embed", Codec(read, write))


def _neighbours(config: ModelConfig, of: int = 3) -> Codec:
    """Rows of `of` stacked projections, the value's last, which stay; those of queries and keys may change their order.

    DINOv3 pairs (i, i + half) as we do. The others turn neighbours, (2i, 2i + 1); with `_THETA_ROWS_FIRST` rows first.
    """
    heads = config.num_heads
    head_dim = config.attn_dim // heads
    order = torch.arange(head_dim)
    if config.rotary in ("axial", "mixed"):
        pairs = order.reshape(-1, 2)
        if config.rotary == "axial" and config.rotary_theta == _THETA_ROWS_FIRST:
            pairs = pairs.roll(head_dim // 4, dims=0)
        order = pairs.T.flatten()
    one = (torch.arange(heads)[:, None] * head_dim + order).flatten()
    plain = torch.arange(heads * head_dim)
    places = torch.cat([*[one + part * len(one) for part in range(of - 1)], plain + (of - 1) * len(one)])
    back = places.argsort()
    return Codec(read=lambda theirs: (theirs[places],), write=lambda ours: (ours[back.to(ours.device)],))


def _both(first: Codec, second: Codec) -> Codec:
    """One after the other, as reading goes."""
    return Codec(
        read=lambda *theirs: second.read(*first.read(*theirs)), write=lambda *ours: first.write(*second.write(*ours))
    )


_BY_AXIS = Codec(
    read=lambda theirs: (rearrange(theirs, "two block h f -> block two h f"),),
    write=lambda ours: (rearrange(ours, "block two h f -> two block h f"),),
)

_BOTH = (False, True)
_HELD: dict[str, tuple[Any, ...] | None] = {
    "num_registers": None,
    "head_dim": None,
    "prefix_position": ("all", "class", "none"),
    "patch_bias": _BOTH,
    "patch_norm": _BOTH,
    "embed_norm": _BOTH,
    "qkv_bias": _BOTH,
    "proj_bias": _BOTH,
    "mlp": ("plain", "gated"),
    "mlp_bias": _BOTH,
    "act": ("gelu", "gelu_tanh", "quick_gelu", "silu"),
    "norm": ("layer", "rms"),
    "norm_eps": (1e-6, 1e-5, 1e-12),  # timm's two; transformers' 1e-12 differs from the first by rounding
    "layer_scale": (0.0, 1e-5),
    "pool": ("token", "mean", "max", "map"),
    "final_norm": _BOTH,
    "fc_norm": _BOTH,
}


def _refuses(config: ModelConfig) -> list[str]:
    """Choices that timm's modules do not take beside each other."""
    combined = {
        f"model.head_dim={config.head_dim}": config.attn_dim != config.embed_dim,
        f"model.pool=map beside model.mlp={config.mlp}": config.pool == "map" and config.mlp != "plain",
        "model.pool=map beside model.mlp_bias=False": config.pool == "map" and not config.mlp_bias,
        "model.fc_norm=True beside model.distill_token=True": config.fc_norm and config.distill_token,
    }
    return [choice for choice, there in combined.items() if there]


_PRETRAINING = {r"^mask_token$|^decoder_": "of pre-training alone"}

TIMM: tuple[Format, ...] = (
    Format(
        name="timm",
        recognises=lambda names: {"patch_embed.proj.weight", "pos_embed"} <= names and not is_eva(names),
        read_config=read_config,
        rows=rows,
        allowed=_HELD | {"distill_token": _BOTH, "qk_norm": _BOTH, "norm_order": ("pre", "post")},
        refuses=_refuses,
        skipped=_PRETRAINING,
    ),
    Format(
        name="timm eva",
        recognises=is_eva,
        read_config=read_config,
        rows=eva_rows,
        allowed=_HELD
        | {"position": ("learned", "none"), "rotary": ("none", "axial", "mixed", "dinov3"), "key_bias": _BOTH},
        refuses=_refuses,
        skipped=_PRETRAINING,
    ),
)
"""The first that fits is written: `eva.py` where there is a rotation, keys without bias, or no position at all."""
