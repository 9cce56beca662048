"""Keys and values -> a checked `ModelConfig`: everything that decides a model's shape."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config import ranges as check

Stem = Literal["linear", "conv", "cct", "shifted", "normed"]
PositionKind = Literal["learned", "sinusoidal", "sincos2d", "sincos2d_big_vision", "none"]
Interpolation = Literal["timm", "torchvision", "huggingface", "google"]
Rotary = Literal["none", "axial", "mixed", "dinov3"]
PrefixPosition = Literal["all", "class", "none"]
MlpKind = Literal["plain", "gated"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
NormKind = Literal["layer", "rms"]
NormOrder = Literal["pre", "post"]
DropPathSchedule = Literal["linear", "constant"]
PoolKind = Literal["token", "mean", "max", "token_mean", "map", "sequence"]
InitScheme = Literal["timm", "xavier", "jax", "jax_nlhb", "torchvision", "deit3", "mae", "mimetic"]

FORMER_NAMES = {"drop_rate": "pos_drop_rate"}
"""Names of fields in files of earlier versions -> today's."""

_READ_CLASS_TOKEN = ("token", "token_mean")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a Vision Transformer is made of; `build.build_model` makes it.

    Attributes:
        img_size: Height and width of its images in px.
        patch_size: Side of a square patch in px; divides both.
        in_chans: Channels of an image, 3 for RGB.
        num_classes: Logits; 0 leaves the head out, so that the model returns features.
        embed_dim: Width of a token.
        depth: Encoder blocks.
        num_heads: Attention heads; divides `embed_dim` unless `head_dim` is given.
        stem: How pixels become tokens. `linear` projects each patch; `conv` and `cct` are overlapping convolutions,
            whose strides multiply to `patch_size`; `shifted` projects each patch with its neighbourhood;
            `normed` projects each patch between two norms.
        patch_bias: Whether the patch projection has a bias.
        patch_norm: A norm on each patch's token before its position, as in AIMv2.
        dynamic_img_size: Take every image that patches tile, positions resized on the way, instead of `img_size` alone.
        position: What is added to a token for its place: a `learned` grid, or a fixed one: `sinusoidal` in the token's
            number, `sincos2d` in row and column as in MAE, `sincos2d_big_vision` as there.
        position_resize: Whose interpolation brings a learned grid to another size.
        rotary: What turns queries and keys by their place: `axial` angles fixed per axis, `mixed` learned ones, or
            `dinov3`, fixed ones of coordinates that span every image from -1 to 1.
        rotary_theta: Base of the wavelengths; 100 for `axial` and `dinov3`, 10 for `mixed` in their papers.
        relative_bias: Learned offsets on the attention scores, by relative row and column.
        class_token: Whether one learned token gathers the image; None, only where the pool reads it.
        distill_token: Whether a second one learns from a teacher; the head then has two halves.
        num_registers: Learned tokens that are there to be written on.
        prefix_position: Which prefix tokens have a learned position: `all`, `class` (and distillation token), `none`.
        embed_norm: A norm on tokens and prefix before the first block, as in CLIP.
        head_dim: Width of a head; None shares `embed_dim` among them.
        qkv_bias: Whether queries, keys and values have a bias.
        key_bias: Whether the keys do, where `qkv_bias` says so; DINOv3's do not.
        proj_bias: Whether the attention's output projection has a bias.
        qk_norm: A norm on each head's queries and keys.
        locality: Learned temperature, and no token attends to itself (LSA).
        attn_gate: A sigmoid gate on what attention gathered.
        mlp: `plain`, or `gated`: one half of the hidden layer scales the other; with `act` silu this is SwiGLU.
        mlp_ratio: Hidden width of the MLP over `embed_dim`; of a gated one, the width of each half.
        mlp_bias: Whether the MLP's layers have a bias.
        act: Non-linearity of the MLP; `gelu` is the exact one.
        norm: `layer` norm, or `rms` norm, which has no mean and no bias.
        norm_eps: Added to the variance in every norm but a stem's own.
        norm_order: `pre`: before each branch; `post`: after it, before it is added (res-post).
        layer_scale: Initial scale of each branch, learned per channel; 0 leaves it out.
        pool: How tokens become one vector: read the class `token`; `mean` or `max` over patches; class token beside
            mean, `token_mean`; attention by a learned query, `map`; learned weights over patches, `sequence`.
        final_norm: A norm after the last block.
        fc_norm: A norm after pooling.
        init: How fresh weights are drawn; see `init`. `xavier` scales with the width, which narrow models need.
        pos_drop_rate: Dropout once, after positions and prefix.
        patch_drop_rate: Share of patches that each image loses in training.
        proj_drop_rate: Dropout on the attention's output and inside the MLP.
        attn_drop_rate: Dropout on the attention probabilities.
        drop_path_rate: Stochastic depth of the last block.
        drop_path_schedule: `linear`: earlier blocks ramp up to it from 0; `constant`: all have the same.

    Raises:
        ConfigError: A value that breaks a rule; the message names the key, the value and a way out.
    """

    img_size: tuple[int, int]
    patch_size: int
    in_chans: int
    num_classes: int
    embed_dim: int
    depth: int
    num_heads: int
    stem: Stem = "linear"
    patch_bias: bool = True
    patch_norm: bool = False
    dynamic_img_size: bool = False
    position: PositionKind = "learned"
    position_resize: Interpolation = "timm"
    rotary: Rotary = "none"
    rotary_theta: float = 100.0
    relative_bias: bool = False
    class_token: bool | None = None
    distill_token: bool = False
    num_registers: int = 0
    prefix_position: PrefixPosition = "class"
    embed_norm: bool = False
    head_dim: int | None = None
    qkv_bias: bool = True
    key_bias: bool = True
    proj_bias: bool = True
    qk_norm: bool = False
    locality: bool = False
    attn_gate: bool = False
    mlp: MlpKind = "plain"
    mlp_ratio: float = 4.0
    mlp_bias: bool = True
    act: Activation = "gelu"
    norm: NormKind = "layer"
    norm_eps: float = 1e-6
    norm_order: NormOrder = "pre"
    layer_scale: float = 0.0
    pool: PoolKind = "token"
    final_norm: bool = True
    fc_norm: bool = False
    init: InitScheme = "timm"
    pos_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: DropPathSchedule = "linear"

    def __post_init__(self) -> None:
        check.check_size(self.img_size)
        for key in ("patch_size", "in_chans", "embed_dim", "depth", "num_heads"):
            check.check_whole(f"model.{key}", getattr(self, key), least=1)
        check.check_whole("model.num_classes", self.num_classes, least=0)
        check.check_whole("model.num_registers", self.num_registers, least=0)
        for key in ("mlp_ratio", "norm_eps", "rotary_theta"):
            check.check_positive(f"model.{key}", getattr(self, key))
        for key, kind in typing.get_type_hints(type(self)).items():
            if kind is bool:
                check.check_truth(f"model.{key}", getattr(self, key))
            elif get_origin(kind) is Literal:
                check.check_choice(f"model.{key}", getattr(self, key), get_args(kind))
            elif key.endswith("drop_rate") or key == "drop_path_rate":
                check.check_rate(f"model.{key}", getattr(self, key))
        check.check_scale("model.layer_scale", self.layer_scale)
        check.check_patches(self.patch_size, self.img_size)
        self._check_heads()
        self._check_combinations()

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches in an image."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands first."""
        return self.pool in _READ_CLASS_TOKEN if self.class_token is None else self.class_token

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens that stand before the patches: class token, distillation token, registers."""
        return self.has_class_token + self.distill_token + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Length of the sequence that the encoder sees."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def attn_dim(self) -> int:
        """Width of all heads together."""
        return self.embed_dim if self.head_dim is None else self.num_heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        # Rounded down, as in timm, but for what a ratio read off a file lost: 11 * (15 / 11) is 14.999999999999998.
        return int(self.embed_dim * self.mlp_ratio + 1e-6)

    @property
    def num_features(self) -> int:
        """Width of what the pool gives and the head takes."""
        return self.embed_dim * (2 if self.pool == "token_mean" or self.distill_token else 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML keep them; `from_dict` takes them back."""
        return dataclasses.asdict(self) | {"img_size": list(self.img_size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The configuration that `as_dict` wrote.

        Raises:
            UnknownNameError: A key that does not exist; the nearest one is suggested.
            ConfigError: A key that is missing, or a value that breaks a rule.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values = {FORMER_NAMES.get(key, key): value for key, value in values.items()}
        for key, value in values.items():
            if key not in fields:
                known = [f"model.{name}" for name in fields]
                raise UnknownNameError(f"model.{key}={value!r}: no such key; {nearest(f'model.{key}', known)}")
        required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [f"model.{name}" for name in required if name not in values]
        if missing:
            raise ConfigError(f"model={dict(values)}: lacks {', '.join(missing)}; add it")
        img_size = values["img_size"]
        return cls(**{**values, "img_size": tuple(img_size) if isinstance(img_size, list) else img_size})

    def _check_heads(self) -> None:
        if self.head_dim is None:
            check.check_heads(self.num_heads, self.embed_dim)
        else:
            check.check_whole("model.head_dim", self.head_dim, least=1)
            if self.pool == "map" and self.embed_dim % self.num_heads:
                raise ConfigError(
                    f"model.pool=map: shares model.embed_dim={self.embed_dim} among model.num_heads={self.num_heads}, "
                    f"which leaves a remainder of {self.embed_dim % self.num_heads}; change one of the three"
                )
        if self.mlp_dim < 1:
            raise ConfigError(
                f"model.mlp_ratio={self.mlp_ratio}: leaves the MLP no hidden unit at model.embed_dim={self.embed_dim}; "
                f"use {1 / self.embed_dim:.2g} or more"
            )

    def _check_combinations(self) -> None:
        if self.class_token is not None:
            check.check_truth("model.class_token", self.class_token)
        if self.distill_token and self.pool != "token":
            raise ConfigError(f"model.distill_token=True: is read beside the class token, not by pool={self.pool}; "
                              "use model.pool=token")  # fmt: skip
        if not self.has_class_token and self.pool in _READ_CLASS_TOKEN:
            raise ConfigError(f"model.pool={self.pool}: needs a class token; leave model.class_token out, or set it "
                              "true")  # fmt: skip
        if self.rotary != "none":
            head_dim = self.attn_dim // self.num_heads
            key = "embed_dim" if self.head_dim is None else "head_dim"
            of = 4 * (self.num_heads if self.head_dim is None else 1)
            if head_dim % 4:
                check.check_multiple(f"model.{key}", getattr(self, key), of, f"model.rotary={self.rotary}")
        if self.position.startswith("sincos2d"):
            check.check_multiple("model.embed_dim", self.embed_dim, 4, f"model.position={self.position}")
        if self.stem in ("conv", "cct"):
            check.check_power_of_two("model.patch_size", self.patch_size, f"model.stem={self.stem}")
        if self.relative_bias and self.rotary != "none":
            raise ConfigError(f"model.relative_bias=True: is not combined with model.rotary={self.rotary}; "
                              "use one of the two")  # fmt: skip
        if self.relative_bias and self.dynamic_img_size:
            raise ConfigError("model.relative_bias=True: has one entry per offset of its own grid, which "
                              "model.dynamic_img_size=True leaves open; use model.rotary")  # fmt: skip
