"""Tensor names of vit-pytorch's `ViT` and `SimpleViT`, in several versions <-> ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange

from vitreous.errors import ConfigError, OpenQuestionError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import count_blocks, img_size_of, resolve, way_out
from vitreous.model.weights.table import (
    BATCHED,
    VECTOR,
    Codec,
    Format,
    Hints,
    Row,
    Shapes,
    layer,
    learned_positions,
    row,
)

_LAYERS = "transformer.layers"


@dataclass(frozen=True)
class Version:
    """Tensor names in one range of vit-pytorch's versions.

    Attributes:
        name: Name of the format.
        attention: Names in a block: first norm, projection of queries, keys and values, output projection.
        mlp: Names in a block: second norm, and the two layers after it.
        head: Name of the classification head.
        patch_norms: True if there are norms before and after the patch projection.
        final_norm: True if the norm before the head belongs to the encoder; if not, it is the first part of the head.
        batched: True if tokens and positions have a batch axis of size 1.
        simple: True for a `SimpleViT`: computed positions, no class token.
    """

    name: str
    attention: tuple[str, str, str]
    mlp: tuple[str, str, str]
    head: str = "mlp_head"
    patch_norms: bool = True
    final_norm: bool = True
    batched: bool = False
    simple: bool = False

    @property
    def patch(self) -> str:
        """Name of the patch projection, which comes after the first norm if there is one."""
        return "to_patch_embedding.2" if self.patch_norms else "to_patch_embedding.1"

    @property
    def classifier(self) -> str:
        """Name of the linear layer of the head."""
        return self.head if self.final_norm else f"{self.head}.1"

    def recognizes(self, names: frozenset[str]) -> bool:
        """Return True if the names are of this version; all versions differ in some name or shape."""
        needed = {
            f"{self.patch}.weight",
            f"{_LAYERS}.0.0.{self.attention[1]}.weight",
            f"{_LAYERS}.0.1.{self.mlp[2]}.weight",
        }
        norms = {"to_patch_embedding.3.weight": self.patch_norms, "transformer.norm.weight": self.final_norm}
        others = {"pos_embedding": not self.simple, f"{self.head}.weight": self.final_norm}
        return needed <= names and all((name in names) == expected for name, expected in {**norms, **others}.items())

    def fits(self, shapes: Shapes) -> bool:
        """Return True if the positions have the number of axes of this version."""
        return self.simple or len(shapes["pos_embedding"]) == (3 if self.batched else 2)

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """Read the configuration from the shapes. The user must give `num_heads` or `head_dim`."""
        width, values = shapes[f"{self.patch}.weight"]
        patch_size, in_chans = _patch_of(values, hints)
        heads, head_dim = _heads_of(shapes[f"{_LAYERS}.0.0.{self.attention[1]}.weight"][0] // 3, hints)
        token = "cls_token" in shapes
        if token and hints.architecture.get("pool", "token") != "token":
            raise ConfigError(
                f"architecture.pool={hints.architecture['pool']}: this file has a class token, which vit-pytorch would "
                "pool together with the patches, but vitreous would not; use pool=token"
            )
        return resolve(
            {
                "img_size": None
                if self.simple
                else img_size_of(shapes["pos_embedding"][-2] - token, patch_size, hints),
                "patch_size": patch_size,
                "in_chans": in_chans,
                "num_classes": shapes[f"{self.classifier}.weight"][0],
                "embed_dim": width,
                "depth": count_blocks(shapes, r"^transformer\.layers\.(\d+)\."),
                "num_heads": heads,
                "head_dim": head_dim,
                "mlp_ratio": shapes[f"{_LAYERS}.0.1.{self.mlp[1]}.weight"][0] / width,
                "stem": "normed" if self.patch_norms else "linear",
                "position": "sincos2d_big_vision" if self.simple else "learned",
                "qkv_bias": False,
                "proj_bias": not self.simple,
                "norm_eps": 1e-5,
                "pool": "token" if token else "mean",
                "final_norm": self.final_norm,
                "fc_norm": not self.final_norm,
            },
            hints,
        )

    def rows(self, config: ModelConfig) -> list[Row]:
        """Build the table of tensor names."""
        table = layer("tokenizer.proj", self.patch, _pixels(config))
        if self.patch_norms:
            table += [
                row("tokenizer.norm.weight", "to_patch_embedding.1.weight", _pixels(config)),
                row("tokenizer.norm.bias", "to_patch_embedding.1.bias", _pixels(config)),
                *layer("tokenizer.norm_after", "to_patch_embedding.3"),
            ]
        for number in range(config.depth):
            ours, theirs = f"encoder.blocks.{number}", f"{_LAYERS}.{number}"
            table += [
                *layer(f"{ours}.norm1", f"{theirs}.0.{self.attention[0]}"),
                row(f"{ours}.attn.qkv.weight", f"{theirs}.0.{self.attention[1]}.weight"),
                *layer(f"{ours}.attn.proj", f"{theirs}.0.{self.attention[2]}", bias=not self.simple),
                *layer(f"{ours}.norm2", f"{theirs}.1.{self.mlp[0]}"),
                *layer(f"{ours}.mlp.fc1", f"{theirs}.1.{self.mlp[1]}"),
                *layer(f"{ours}.mlp.fc2", f"{theirs}.1.{self.mlp[2]}"),
            ]
        table += layer("encoder.norm", "transformer.norm") if self.final_norm else layer("fc_norm", f"{self.head}.0")
        return table + self._embeddings(config) + layer("head", self.classifier)

    def _embeddings(self, config: ModelConfig) -> list[Row]:
        if self.simple:
            return []
        if config.has_class_token:
            token = row("prefix.class_token", "cls_token", VECTOR if self.batched else BATCHED)
        else:  # vit-pytorch then keeps an empty table of tokens
            token = row([], "cls_token", Codec(lambda _: (), lambda: (torch.empty(0, config.embed_dim),)))
        return [token, learned_positions(config, "pos_embedding", batched=self.batched)]

    def refuses(self, config: ModelConfig) -> list[str]:
        """List the choices that this version cannot hold, beyond what `allowed` says."""
        has_class_token = config.pool == "token" and not self.simple
        refused = ["model.num_classes=0"] if config.num_classes == 0 else []
        return refused + (
            [] if config.has_class_token == has_class_token else [f"model.class_token={config.class_token}"]
        )

    def format(self) -> Format:
        """Build the Format of this version."""
        allowed: Mapping[str, tuple[Any, ...]] = {
            "stem": ("normed",) if self.patch_norms else ("linear",),
            "position": ("sincos2d_big_vision",) if self.simple else ("learned",),
            "pool": ("mean",) if self.simple else ("token",) if self.batched else ("token", "mean"),
            "qkv_bias": (False,),
            "proj_bias": (not self.simple,),
            "norm_eps": (1e-5,),
            "head_dim": (None, 1),
            "final_norm": (self.final_norm,),
            "fc_norm": (not self.final_norm,),
        }
        return Format(
            name=self.name,
            recognizes=self.recognizes,
            fits=self.fits,
            read_config=self.read_config,
            rows=self.rows,
            allowed=allowed,
            refuses=self.refuses,
            renames=_RENAMES,
            # Older versions have a class token also if they average all tokens.
            assumed=("num_heads", "act", "norm_eps", "patch_size", "in_chans", "img_size")
            + (("pool",) if self.batched else ()),
        )


def _patch_of(values: int, hints: Hints) -> tuple[int, int]:
    """Return patch size and channels of a patch of `values` values: as the user says, else color, else gray."""
    given, chans = hints.architecture.get("patch_size"), hints.architecture.get("in_chans")
    if isinstance(given, int) and given > 0:
        return given, values // given**2
    for candidate in (chans,) if isinstance(chans, int) and chans > 0 else (3, 1):
        side = math.isqrt(values // candidate)
        if side**2 * candidate == values:
            return side, candidate
    raise OpenQuestionError(
        f"patch_size=None: the {values} values of a patch are not a square of 3 channels or 1; pass "
        + way_out("patch_size", 1, f"then with {values} channels"),
        "patch_size",
        1,
    )


def _heads_of(inner: int, hints: Hints) -> tuple[int, int]:
    """Return number and width of the heads from their joint width, and from the one that the user gives."""
    heads, head_dim = hints.architecture.get("num_heads"), hints.architecture.get("head_dim")
    if isinstance(heads, int) and heads > 0:
        return heads, head_dim or inner // heads
    if isinstance(head_dim, int) and head_dim > 0:
        return inner // head_dim, head_dim
    usual = ("num_heads", inner // 64, "if each has vit-pytorch's default width of 64") if inner % 64 == 0 else ()
    raise OpenQuestionError(
        f"num_heads=None: not known from the shapes, all heads together have width {inner}; pass "
        + way_out(*(usual or ("num_heads", 1))),
        "num_heads",
        1,
    )


def _pixels(config: ModelConfig) -> Codec:
    """Reorder values of a patch: the file has them by row, column, channel; our model has channels first."""
    sides = {"p": config.patch_size, "q": config.patch_size, "c": config.in_chans}
    return Codec(
        read=lambda theirs: (rearrange(theirs, "... (p q c) -> ... (c p q)", **sides),),
        write=lambda ours: (rearrange(ours, "... (c p q) -> ... (p q c)", **sides),),
    )


_RENAMES = (
    # The first versions have a residual module around each part, and a bare output projection.
    (r"^patch_to_embedding\.", "to_patch_embedding.1."),
    (r"\.fn\.fn\.", ".fn."),
    (r"\.fn\.norm\.", ".norm."),
    (r"\.fn\.to_out\.(weight|bias)$", r".fn.to_out.0.\1"),
)
_WRAPPED = (("norm", "fn.to_qkv", "fn.to_out.0"), ("norm", "fn.net.0", "fn.net.3"))
_PLAIN = (("norm", "to_qkv", "to_out.0"), ("net.0", "net.1", "net.4"))
_SIMPLE = (("norm", "to_qkv", "to_out"), ("net.0", "net.1", "net.3"))
VERSIONS = (
    Version("vit-pytorch", *_PLAIN),
    Version("vit-pytorch 1.6", *_PLAIN, batched=True),
    Version("vit-pytorch 1.2", *_PLAIN, batched=True, final_norm=False),
    Version("vit-pytorch 1.0", *_WRAPPED, batched=True, final_norm=False),
    Version("vit-pytorch 0", *_WRAPPED, batched=True, final_norm=False, patch_norms=False),
    Version("vit-pytorch SimpleViT", *_SIMPLE, head="linear_head", simple=True),
    Version("vit-pytorch SimpleViT 1.2", *_SIMPLE, head="linear_head", simple=True, final_norm=False),
)
VIT_PYTORCH: tuple[Format, ...] = tuple(version.format() for version in VERSIONS)
"""Source: lucidrains/vit-pytorch, versions 0.6 to 1.26. Versions up to 0.5 use the same names, but scale the attention
scores by the width of the model instead of a head, so their files give other logits here unless both are equal."""
