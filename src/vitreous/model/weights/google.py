"""Tensor names in Google's `.npz` files, of vision_transformer and of big_vision <-> ours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import count_blocks, img_size_of, is_square, resolve
from vitreous.model.weights.table import (
    TRANSPOSED,
    VECTOR,
    Codec,
    Format,
    Hints,
    Row,
    Shapes,
    Tensors,
    learned_positions,
    row,
)

_BLOCK, _BLOCKS = "Transformer/encoderblock_{}", "Transformer/encoderblock"


@dataclass(frozen=True)
class Naming:
    """Names of the parts that the two code bases name differently.

    Attributes:
        positions: Name of the table of learned positions.
        attention: Name of the attention of a block.
        norm2: Name of the second norm of a block.
        mlp: Name of the MLP of a block.
        class_first: True if the class token always has the first position. The newer code adds positions before the
            class token; only its older files have one position more than a square.
        scanned: True if the blocks are stacked: one tensor for all of them, with the blocks on its first axis.
    """

    positions: str
    attention: str
    norm2: str
    mlp: str
    class_first: bool = False
    scanned: bool = False

    def block(self, number: int) -> str:
        """Return the prefix of the tensor names of a block."""
        return _BLOCKS if self.scanned else _BLOCK.format(number)

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """Read the configuration from the shapes, which include the number of heads here."""
        patch_size, _, in_chans, width = shapes["embedding/kernel"]
        heads, head_dim = shapes[f"{self.block(0)}/{self.attention}/query/kernel"][-2:]
        depth = (
            shapes[f"{_BLOCKS}/LayerNorm_0/scale"][0] if self.scanned else count_blocks(shapes, r"encoderblock_(\d+)/")
        )
        token, learned = "cls" in shapes, self.positions in shapes
        count = shapes[self.positions][1] if learned else 0
        with_class = token and learned and (self.class_first or not is_square(count))
        return resolve(
            {
                "img_size": img_size_of(count - with_class, patch_size, hints) if learned else None,
                "patch_size": patch_size,
                "in_chans": in_chans,
                "num_classes": shapes["head/kernel"][-1] if "head/kernel" in shapes else 0,
                "embed_dim": width,
                "depth": depth,
                "num_heads": heads,
                "head_dim": None if heads * head_dim == width else head_dim,
                "mlp_ratio": shapes[f"{self.block(0)}/{self.mlp}/Dense_0/kernel"][-1] / width,
                "act": "gelu_tanh",
                "position": "learned" if learned else "sincos2d_big_vision",
                "prefix_position": "class" if with_class or not token else "none",
                "pool": "map" if "MAPHead_0/probe" in shapes else "token" if token else "mean",
                "position_resize": "google",
                "init": "jax",
            },
            hints,
        )

    def rows(self, config: ModelConfig) -> list[Row]:
        """Build the table of tensor names."""
        table = [
            row("tokenizer.proj.weight", "embedding/kernel", _patch_kernel(config)),
            row("tokenizer.proj.bias", "embedding/bias"),
            *_norm("encoder.norm", "Transformer/encoder_norm"),
            *self._blocks(config),
        ]
        if config.has_class_token:
            table.append(row("prefix.class_token", "cls", VECTOR))
        if config.position == "learned":
            table.append(learned_positions(config, self.positions))
        if config.pool == "map":
            table += _map_head(config)
        return table + (_dense("head", "head") if config.num_classes else [])

    def _blocks(self, config: ModelConfig) -> list[Row]:
        head_dim = config.attn_dim // config.num_heads
        parts = [
            *_norm("norm1", "LayerNorm_0"),
            *_attention("attn.qkv", self.attention, ("query", "key", "value"), config.num_heads, head_dim),
            *_output("attn.proj", f"{self.attention}/out", config.num_heads, head_dim),
            *_norm("norm2", self.norm2),
            *_dense("mlp.fc1", f"{self.mlp}/Dense_0"),
            *_dense("mlp.fc2", f"{self.mlp}/Dense_1"),
        ]
        if self.scanned:
            return [_across_blocks(part, config.depth) for part in parts]
        return [
            _prefixed(part, f"encoder.blocks.{number}.", f"{self.block(number)}/")
            for number in range(config.depth)
            for part in parts
        ]


def _norm(ours: str, theirs: str) -> list[Row]:
    return [row(f"{ours}.weight", f"{theirs}/scale"), row(f"{ours}.bias", f"{theirs}/bias")]


def _dense(ours: str, theirs: str) -> list[Row]:
    return [row(f"{ours}.weight", f"{theirs}/kernel", TRANSPOSED), row(f"{ours}.bias", f"{theirs}/bias")]


def _attention(ours: str, theirs: str, names: Sequence[str], num_heads: int, head_dim: int) -> list[Row]:
    """Build the rows of query, key and value: kernels `[dim, heads, head_dim]`, biases `[heads, head_dim]`."""

    def read_kernels(*kernels: Tensor) -> Tensors:
        return (torch.cat([rearrange(kernel, "d h k -> (h k) d") for kernel in kernels]),)

    def write_kernels(whole: Tensor) -> Tensors:
        return tuple(rearrange(part, "(h k) d -> d h k", h=num_heads) for part in whole.chunk(len(names)))

    def write_biases(whole: Tensor) -> Tensors:
        return tuple(part.reshape(num_heads, head_dim) for part in whole.chunk(len(names)))

    biases = Codec(read=lambda *parts: (torch.cat([part.flatten() for part in parts]),), write=write_biases)
    return [
        row(f"{ours}.weight", [f"{theirs}/{name}/kernel" for name in names], Codec(read_kernels, write_kernels)),
        row(f"{ours}.bias", [f"{theirs}/{name}/bias" for name in names], biases),
    ]


def _output(ours: str, theirs: str, num_heads: int, head_dim: int) -> list[Row]:
    """Build the rows of the output projection, whose kernel is `[heads, head_dim, dim]`."""
    kernel = Codec(
        read=lambda theirs: (rearrange(theirs, "h k d -> d (h k)"),),
        write=lambda ours: (rearrange(ours, "d (h k) -> h k d", h=num_heads, k=head_dim),),
    )
    return [row(f"{ours}.weight", f"{theirs}/kernel", kernel), row(f"{ours}.bias", f"{theirs}/bias")]


def _map_head(config: ModelConfig) -> list[Row]:
    theirs, head_dim = "MAPHead_0/MultiHeadDotProductAttention_0", config.embed_dim // config.num_heads
    return [
        row("pool.probe", "MAPHead_0/probe", VECTOR),
        *_attention("pool.q", theirs, ("query",), config.num_heads, head_dim),
        *_attention("pool.kv", theirs, ("key", "value"), config.num_heads, head_dim),
        *_output("pool.proj", f"{theirs}/out", config.num_heads, head_dim),
        *_norm("pool.norm", "MAPHead_0/LayerNorm_0"),
        *_dense("pool.mlp.fc1", "MAPHead_0/MlpBlock_0/Dense_0"),
        *_dense("pool.mlp.fc2", "MAPHead_0/MlpBlock_0/Dense_1"),
    ]


def _patch_kernel(config: ModelConfig) -> Codec:
    """Turn the convolution kernel of the patches, `[row, column, chans, dim]`, into our matrix."""
    return Codec(
        read=lambda theirs: (rearrange(theirs, "p q c d -> d (c p q)"),),
        write=lambda ours: (
            rearrange(ours, "d (c p q) -> p q c d", p=config.patch_size, q=config.patch_size, c=config.in_chans),
        ),
    )


def _prefixed(part: Row, ours: str, theirs: str) -> Row:
    """Add prefixes to the names of a row."""
    return row([ours + name for name in part.ours], [theirs + name for name in part.theirs], part.codec)


def _across_blocks(part: Row, depth: int) -> Row:
    """Build one row for all blocks: the file stacks their tensors on the first axis, our model has one per block."""

    def read(*stacked: Tensor) -> Tensors:
        return tuple(ours for parts in zip(*stacked, strict=True) for ours in part.codec.read(*parts))

    def write(*ours: Tensor) -> Tensors:
        return tuple(torch.stack(each) for each in zip(*(part.codec.write(one) for one in ours), strict=True))

    ours = [f"encoder.blocks.{number}.{name}" for number in range(depth) for name in part.ours]
    return row(ours, [f"{_BLOCKS}/{name}" for name in part.theirs], Codec(read, write))


def _with_representation(read_config: Callable[[Shapes, Hints], ModelConfig]) -> Callable[[Shapes, Hints], ModelConfig]:
    """Wrap `read_config` for files whose head cannot be used: the user must request another head, or none."""

    def read(shapes: Shapes, hints: Hints) -> ModelConfig:
        if hints.num_classes is None:
            raise ConfigError(
                "num_classes=None: the head of the file comes after a tanh layer, pre_logits, that is not supported; "
                "pass num_classes for a fresh head, or 0 for none"
            )
        return read_config({name: shape for name, shape in shapes.items() if not name.startswith("head/")}, hints)

    return read


def _formats(name: str, naming: Naming, allowed: Mapping[str, tuple[Any, ...]]) -> tuple[Format, Format]:
    """Build the two formats that use these names: without and with a representation layer before the head."""
    needed = {"embedding/kernel", f"{naming.block(0)}/{naming.attention}/query/kernel"}
    plain = Format(
        name=name,
        recognizes=lambda names: needed <= names and "pre_logits/kernel" not in names,
        read_config=naming.read_config,
        rows=naming.rows,
        allowed={"act": ("gelu_tanh",), "head_dim": (None, 1), **allowed},
        # In models of Google's code, the head reads the class token if there is one.
        refuses=lambda config: ["model.class_token=True"] if config.has_class_token and config.pool != "token" else [],
        renames=_RENAMES,
        skipped=_SKIPPED,
        assumed=("act", "norm_eps", "img_size"),
    )
    represented = replace(
        plain,
        recognizes=lambda names: needed | {"pre_logits/kernel"} <= names,
        read_config=_with_representation(naming.read_config),
        skipped={**_SKIPPED, "^(pre_logits|head)/": "a tanh layer that is not supported, and the head after it"},
    )
    return plain, represented


_RENAMES = (
    (r"^(opt/target/|params/img/|params/)", ""),
    # big_vision before 2022, and while its attention pooling was being developed.
    (r"^Transformer/pos_embedding$", "pos_embedding"),
    (r"^(probe$|MlpBlock_0/|MultiHeadDotProductAttention_0/|LayerNorm_0/)", r"MAPHead_0/\1"),
)
_SKIPPED = {
    "^(opt|chrono|extra)/": "the state of a training run",
    "^txt/": "the text tower",
    "^[tb]$": "temperature and bias of the loss over images and texts",
}
ORIGINAL = Naming(
    positions="Transformer/posembed_input/pos_embedding",
    attention="MultiHeadDotProductAttention_1",
    norm2="LayerNorm_2",
    mlp="MlpBlock_3",
    class_first=True,
)
BIG_VISION = Naming(
    positions="pos_embedding", attention="MultiHeadDotProductAttention_0", norm2="LayerNorm_1", mlp="MlpBlock_0"
)
_NEWER = {
    "position": ("learned", "sincos2d_big_vision"),
    "pool": ("token", "mean", "map"),
    "prefix_position": ("class", "none"),
}
GOOGLE: tuple[Format, ...] = (
    *_formats("vision_transformer", ORIGINAL, {"pool": ("token", "mean")}),
    *_formats("big_vision", BIG_VISION, _NEWER),
    *_formats("big_vision", replace(BIG_VISION, scanned=True), _NEWER),
)
"""Source: google-research/vision_transformer `models_vit.py` and google-research/big_vision `models/vit.py`, with the
names that Flax gives to their parts. Both use LayerNorm with eps 1e-6, and the tanh GELU, the default of `jax.nn.gelu`.
"""
