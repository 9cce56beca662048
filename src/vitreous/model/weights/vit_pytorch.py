"""vit-pytorch's names, of `ViT` and `SimpleViT` in several of its versions -> ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import count_blocks, img_size_of, resolve
from vitreous.model.weights.table import Codec, Format, Hints, Row, Shapes, layer, position_grid, prefix_positions, row

_LAYERS = "transformer.layers"


@dataclass(frozen=True)
class Version:
    """How the models of one time are spelt.

    Attributes:
        name: Of the format.
        attention: A block's norm, projection of queries, keys and values, and output projection.
        mlp: A block's second norm and the two layers after it.
        head: What scores the classes.
        patch_norms: Whether norms stand before and after the patch projection.
        final_norm: Whether the norm before the head is the encoder's; if not, it is the first part of the head.
        listed: Whether tokens and positions have an axis for the batch.
        simple: Whether it is a `SimpleViT`: computed positions, no class token.
    """

    name: str
    attention: tuple[str, str, str]
    mlp: tuple[str, str, str]
    head: str = "mlp_head"
    patch_norms: bool = True
    final_norm: bool = True
    listed: bool = False
    simple: bool = False

    @property
    def patch(self) -> str:
        """The patch projection, which stands after whatever norm there is."""
        return "to_patch_embedding.2" if self.patch_norms else "to_patch_embedding.1"

    @property
    def classifier(self) -> str:
        """The matrix of the head."""
        return self.head if self.final_norm else f"{self.head}.1"

    def recognises(self, names: frozenset[str]) -> bool:
        """Whether names are of this version, of which each has some that no other has."""
        needed = {
            f"{self.patch}.weight",
            f"{_LAYERS}.0.0.{self.attention[1]}.weight",
            f"{_LAYERS}.0.1.{self.mlp[2]}.weight",
        }
        norms = {"to_patch_embedding.3.weight": self.patch_norms, "transformer.norm.weight": self.final_norm}
        others = {"pos_embedding": not self.simple, f"{self.head}.weight": self.final_norm}
        return needed <= names and all((name in names) == there for name, there in {**norms, **others}.items())

    def fits(self, shapes: Shapes) -> bool:
        """Whether tokens and positions have as many axes."""
        return self.simple or len(shapes["pos_embedding"]) == (3 if self.listed else 2)

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """What the shapes say. The heads are open: the user gives their number, or the width of one."""
        width, values = shapes[f"{self.patch}.weight"]
        patch_size, in_chans = _patch_of(values, hints)
        heads, head_dim = _heads_of(shapes[f"{_LAYERS}.0.0.{self.attention[1]}.weight"][0] // 3, hints)
        token = "cls_token" in shapes
        if token and hints.architecture.get("pool", "token") != "token":
            raise ConfigError(
                f"architecture.pool={hints.architecture['pool']}: this file has a class token, which vit-pytorch would "
                "pool with the patches and vitreous would not; use pool=token, or train the pool anew"
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
        """The table."""
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
        ours, grid = position_grid(config, prefix_positions(config))
        if config.has_class_token:
            token = row("prefix.class_token", "cls_token", _listed(2 if self.listed else 1))
        else:  # vit-pytorch keeps a table of no tokens
            token = row([], "cls_token", Codec(lambda _: (), lambda: (torch.empty(0, config.embed_dim),)))
        return [token, row(ours, "pos_embedding", grid if self.listed else _without_batch(grid))]

    def refuses(self, config: ModelConfig) -> list[str]:
        """What the fields do not say one by one."""
        meant = config.pool == "token" and not self.simple
        refused = ["model.num_classes=0"] if config.num_classes == 0 else []
        return refused + ([] if config.has_class_token == meant else [f"model.class_token={config.class_token}"])

    def format(self) -> Format:
        """This version as the engine takes it."""
        allowed: Mapping[str, tuple[Any, ...]] = {
            "stem": ("normed",) if self.patch_norms else ("linear",),
            "position": ("sincos2d_big_vision",) if self.simple else ("learned",),
            "pool": ("mean",) if self.simple else ("token",) if self.listed else ("token", "mean"),
            "qkv_bias": (False,),
            "proj_bias": (not self.simple,),
            "norm_eps": (1e-5,),
            "head_dim": (None, 1),
            "final_norm": (self.final_norm,),
            "fc_norm": (not self.final_norm,),
        }
        return Format(
            name=self.name,
            recognises=self.recognises,
            fits=self.fits,
            read_config=self.read_config,
            rows=self.rows,
            allowed=allowed,
            refuses=self.refuses,
            renames=_RENAMES,
        )


def _patch_of(values: int, hints: Hints) -> tuple[int, int]:
    """Patch size and channels of so many values: what the user says, else colour, else grey."""
    told, chans = hints.architecture.get("patch_size"), hints.architecture.get("in_chans")
    if isinstance(told, int) and told > 0:
        return told, values // told**2
    for candidate in (chans,) if isinstance(chans, int) and chans > 0 else (3, 1):
        side = math.isqrt(values // candidate)
        if side**2 * candidate == values:
            return side, candidate
    raise ConfigError(
        f"patch_size=None: the file's patches have {values} values, no square of 3 channels or 1; "
        "pass architecture={'patch_size': …, 'in_chans': …}"
    )


def _heads_of(inner: int, hints: Hints) -> tuple[int, int]:
    """Number and width of heads that are so wide together: either one from the user tells the other."""
    heads, head_dim = hints.architecture.get("num_heads"), hints.architecture.get("head_dim")
    if isinstance(heads, int) and heads > 0:
        return heads, head_dim or inner // heads
    if isinstance(head_dim, int) and head_dim > 0:
        return inner // head_dim, head_dim
    default = f", {inner // 64} where they are 64 wide each, vit-pytorch's default" if inner % 64 == 0 else ""
    raise ConfigError(
        f"num_heads=None: no shape tells it, all heads together are {inner} wide; pass "
        f"architecture={{'num_heads': …}}{default}"
    )


def _pixels(config: ModelConfig) -> Codec:
    """Whatever there is for each value of a patch: in the order row, column, channel there, channel first here."""
    sides = {"p": config.patch_size, "q": config.patch_size, "c": config.in_chans}
    return Codec(
        read=lambda theirs: (rearrange(theirs, "... (p q c) -> ... (c p q)", **sides),),
        write=lambda ours: (rearrange(ours, "... (c p q) -> ... (p q c)", **sides),),
    )


def _listed(axes: int) -> Codec:
    """A token with so many axes of one before its own."""
    return Codec(read=lambda theirs: (theirs.flatten(),), write=lambda ours: (ours.reshape(*[1] * axes, -1),))


def _without_batch(grid: Codec) -> Codec:
    def write(*ours: Tensor) -> tuple[Tensor, ...]:
        return (grid.write(*ours)[0][0],)

    return Codec(read=lambda theirs: grid.read(theirs[None]), write=write)


_RENAMES = (
    # The first versions: a residual around each part, no list around the projections.
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
    Version("vit-pytorch 1.6", *_PLAIN, listed=True),
    Version("vit-pytorch 1.2", *_PLAIN, listed=True, final_norm=False),
    Version("vit-pytorch 1.0", *_WRAPPED, listed=True, final_norm=False),
    Version("vit-pytorch 0", *_WRAPPED, listed=True, final_norm=False, patch_norms=False),
    Version("vit-pytorch SimpleViT", *_SIMPLE, head="linear_head", simple=True),
    Version("vit-pytorch SimpleViT 1.2", *_SIMPLE, head="linear_head", simple=True, final_norm=False),
)
VIT_PYTORCH: tuple[Format, ...] = tuple(version.format() for version in VERSIONS)
"""Source: lucidrains/vit-pytorch, versions 0.6 to 1.26. Up to 0.5 it scaled scores by the model's width instead of a
head's, under the same names: such a file gives other logits here, unless one head is as wide as the model."""
