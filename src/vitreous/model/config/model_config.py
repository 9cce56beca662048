"""Keys and values -> ModelConfig: everything that decides the architecture of a Vision Transformer."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.divisibility import check_heads, check_multiple, check_patches
from vitreous.ranges import Interval, check_fields, rules_of

Stem = Literal["linear", "conv", "cct", "shifted", "normed"]
PositionKind = Literal["learned", "sinusoidal", "sincos2d", "sincos2d_big_vision", "none"]
Interpolation = Literal["timm", "torchvision", "huggingface", "google", "dinov2"]
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
"""Fields under the names that files of earlier versions use -> their present names."""

_CLASS_TOKEN_POOLS = ("token", "token_mean")
_Rate = Annotated[float, Interval("[0, 1)")]
# The upper limits keep sizes that follow from these numbers within what torch can count.
_Positive = Annotated[float, Interval("(0, 2**31)")]
_Count = Annotated[int, Interval("[0, 2**31)")]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture: how images become tokens, what a block contains, and how tokens become logits.

    Attributes:
        img_size: Height and width of the images, in px.
        patch_size: Side of a square patch in px. Must divide the height and the width of the images.
        in_chans: Channels of the images; 3 for RGB.
        num_classes: Number of logits. 0 builds a model without a head, which returns features.
        embed_dim: Width of a token.
        depth: Number of encoder blocks.
        num_heads: Attention heads per block. Must divide `model.embed_dim`, unless `model.head_dim` is set.
        stem: How pixels become tokens. `linear` projects each patch (a standard ViT), `shifted` projects each patch
            together with its shifted neighbors, `normed` projects each patch with a norm before and after. `conv` and
            `cct` are overlapping convolutions whose strides multiply to `model.patch_size`.
        stem_ratio: Channels of the last 3x3 convolution of the stem `conv`, as a fraction of `model.embed_dim`.
        patch_bias: Give the patch projection a bias.
        patch_norm: Normalize each patch token before its position embedding is added, as in AIMv2.
        dynamic_img_size: Accept every image size that patches tile and resize the position embeddings to it, instead of
            accepting only `data.img_size`.
        position: Position embedding that is added to patch tokens: a `learned` grid, fixed `sinusoidal` waves of the
            token's index, fixed waves of its row and column as in MAE (`sincos2d`) or big_vision
            (`sincos2d_big_vision`), or `none`.
        position_resize: Library whose interpolation resizes a learned grid of position embeddings. `dinov2` is Meta's
            own code.
        rotary: Rotary position embedding, which rotates queries and keys by their position in the grid. `axial` has
            fixed angles for each axis, `mixed` learns the angles, `dinov3` has fixed angles of coordinates that run
            from -1 to 1 over every image.
        rotary_theta: Base of the wavelengths of the rotary embedding. The papers use 100 for `axial` and `dinov3`, 10
            for `mixed`.
        relative_bias: Add a learned bias to the attention scores for each relative row and column.
        class_token: Put a learned class token before the patches. `none` adds one only if `model.pool` reads it.
        distill_token: Add a second learned token that learns from a teacher. The head then has two outputs, and the
            logits are their mean.
        num_registers: Number of register tokens: extra learned tokens that no output reads (arXiv 2309.16588).
        prefix_position: Which tokens before the patches have a learned position embedding: `all`, `class` (class and
            distillation token) or `none`.
        embed_norm: Normalize all tokens before the first block, as in CLIP.
        head_dim: Width of an attention head. `none` divides `model.embed_dim` by `model.num_heads`.
        qkv_bias: Give the projection to queries, keys and values a bias.
        key_bias: Give the keys a bias too, if `model.qkv_bias` is true. DINOv3's keys have none.
        proj_bias: Give the output projection of attention a bias.
        qk_norm: Normalize the queries and keys of each head.
        locality: Use locality self-attention, which has a learned temperature and in which no token attends to itself
            (arXiv 2112.13492).
        attn_gate: Scale the output of attention by a learned sigmoid gate (arXiv 2505.06708).
        mlp: `plain` has two linear layers. In `gated`, one half of the hidden layer scales the other; with
            `model.act=silu` this is SwiGLU.
        mlp_ratio: Hidden width of the MLP as a multiple of `model.embed_dim`; for a gated MLP, the width of each half.
        mlp_bias: Give the linear layers of the MLP a bias.
        act: Activation function of the MLP. `gelu` is the exact GELU, `gelu_tanh` its tanh approximation, `quick_gelu`
            the sigmoid approximation of CLIP.
        norm: `layer` for LayerNorm; `rms` for RMSNorm, which has no mean and no bias.
        norm_eps: Constant added to the variance in norms.
        norm_order: `pre` normalizes the input of each residual branch, `post` its output before it is added.
        layer_scale: Initial value of LayerScale, a learned factor for each channel of a residual branch. 0 leaves
            LayerScale out.
        pool: How tokens become one feature vector. `token` reads the class token, `mean` and `max` pool the patches,
            `token_mean` concatenates the class token and the mean, `map` attends to the patches with a learned query,
            `sequence` is a mean with learned weights.
        final_norm: Normalize tokens after the last block.
        fc_norm: Normalize the pooled features.
        init: How the initial weights are drawn. `xavier` scales them with the width, which narrow models need; the
            others follow the library or paper of that name.
        pos_drop_rate: Dropout rate of the tokens after position embeddings are added.
        patch_drop_rate: Fraction of the patch tokens that each image loses in training (PatchDropout).
        proj_drop_rate: Dropout rate after the output projection of attention and in the MLP.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_path_rate: Stochastic depth: probability that an image skips a residual branch of the last block in
            training.
        drop_path_schedule: How `model.drop_path_rate` applies to earlier blocks: `linear` rises from 0 in the first
            block to this rate in the last, `constant` uses this rate in all blocks.
        extension: Name of parts of your own, which a module of yours has registered with `vitreous.register`.

    Raises:
        UnknownNameError: A name is not among the choices of its field.
        ConfigError: Another value has the wrong type, is out of range, or contradicts another field.
    """

    img_size: Annotated[tuple[int, int], Interval("[1, 2**31)", "give (height, width) in px, e.g. (224, 224)")]
    patch_size: Annotated[int, Interval("[1, 2**31)", "16 is usual, 4 for small images")]
    in_chans: Annotated[int, Interval("[1, 2**31)", "3 is usual, for RGB")]
    num_classes: Annotated[int, Interval("[0, 2**31)", "0 builds a model without a head")]
    embed_dim: Annotated[int, Interval("[1, 2**31)", "192 to 1024 is usual")]
    depth: Annotated[int, Interval("[1, 1000]", "6 to 24 is usual")]
    num_heads: Annotated[int, Interval("[1, 2**31)", "model.embed_dim / 64 is usual")]
    stem: Stem = "linear"
    stem_ratio: Annotated[float, Interval("(0, 4]", "0.5 and 1 are usual")] = 0.5
    patch_bias: bool = True
    patch_norm: bool = False
    dynamic_img_size: bool = False
    position: PositionKind = "learned"
    position_resize: Interpolation = "timm"
    rotary: Rotary = "none"
    rotary_theta: _Positive = 100.0
    relative_bias: bool = False
    class_token: bool | None = None
    distill_token: bool = False
    num_registers: _Count = 0
    prefix_position: PrefixPosition = "class"
    embed_norm: bool = False
    head_dim: Annotated[int, Interval("[1, 2**31)", "64 is usual")] | None = None
    qkv_bias: bool = True
    key_bias: bool = True
    proj_bias: bool = True
    qk_norm: bool = False
    locality: bool = False
    attn_gate: bool = False
    mlp: MlpKind = "plain"
    mlp_ratio: _Positive = 4.0
    mlp_bias: bool = True
    act: Activation = "gelu"
    norm: NormKind = "layer"
    norm_eps: _Positive = 1e-6
    norm_order: NormOrder = "pre"
    layer_scale: Annotated[float, Interval("[0, 2**31)", "1e-4 is usual, 0 leaves it out")] = 0.0
    pool: PoolKind = "token"
    final_norm: bool = True
    fc_norm: bool = False
    init: InitScheme = "timm"
    pos_drop_rate: _Rate = 0.0
    patch_drop_rate: _Rate = 0.0
    proj_drop_rate: _Rate = 0.0
    attn_drop_rate: _Rate = 0.0
    drop_path_rate: _Rate = 0.0
    drop_path_schedule: DropPathSchedule = "linear"
    extension: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, "model")
        check_patches(self.patch_size, self.img_size, self.stem)
        per_head = 4 if self.rotary != "none" else 1
        if self.head_dim is None:
            way_out = "" if self.pool == "map" else ", or set model.head_dim"
            check_heads(self.num_heads, self.embed_dim, per_head, way_out)
        if self.mlp_dim < 1:
            raise ConfigError(
                f"model.mlp_ratio={self.mlp_ratio}: leaves the MLP no hidden unit at width {self.embed_dim}; "
                f"use {math.ceil(1000 / self.embed_dim) / 1000:g} or more"
            )
        if self.position.startswith("sincos2d"):
            step = self.num_heads * per_head if self.head_dim is None else 1
            check_multiple("model.embed_dim", self.embed_dim, 4, f"model.position={self.position}", step)
        if self.rotary != "none" and self.head_dim is None:
            check_multiple("model.embed_dim", self.embed_dim, 4 * self.num_heads, f"model.rotary={self.rotary}")
        elif self.rotary != "none" and self.head_dim is not None:
            check_multiple("model.head_dim", self.head_dim, 4, f"model.rotary={self.rotary}")
        self._check_combinations()

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def has_class_token(self) -> bool:
        """True if the sequence begins with a class token."""
        return self.pool in _CLASS_TOKEN_POOLS if self.class_token is None else self.class_token

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class token, distillation token and registers."""
        return self.has_class_token + self.distill_token + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Length of the sequence in the encoder."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def attn_dim(self) -> int:
        """Width of all attention heads together."""
        return self.embed_dim if self.head_dim is None else self.num_heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        # Rounded down as in timm. The small constant makes up for rounding: 11 * (15 / 11) is 14.999999999999998.
        return int(self.embed_dim * self.mlp_ratio + 1e-6)

    @property
    def num_features(self) -> int:
        """Width of the pooled features, which the head takes."""
        return self.embed_dim * (2 if self.pool == "token_mean" or self.distill_token else 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and YAML can store; `from_dict` reads them back."""
        return dataclasses.asdict(self) | {"img_size": list(self.img_size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Build the configuration that `as_dict` stored.

        Raises:
            UnknownNameError: A key does not exist; the message suggests the nearest one.
            ConfigError: A key is missing, or a value breaks a rule.
        """
        rules = rules_of(cls)
        values = {FORMER_NAMES.get(key, key): value for key, value in values.items()}
        for key, value in values.items():
            if key not in rules:
                known = [f"model.{name}" for name in rules]
                raise UnknownNameError(f"model.{key}={value!r}: no such key; {nearest(f'model.{key}', known)}")
        missing = [f"model.{name}" for name, rule in rules.items() if rule.is_required and name not in values]
        if missing:
            raise ConfigError(f"model={dict(values)}: lacks {', '.join(missing)}; add what is missing")
        img_size = values["img_size"]
        return cls(**{**values, "img_size": tuple(img_size) if isinstance(img_size, list) else img_size})

    def _check_combinations(self) -> None:
        if self.distill_token and self.class_token is False:
            raise ConfigError(
                "model.class_token=False: model.distill_token=True needs the class token as well; leave it out"
            )
        if self.distill_token and self.pool != "token":
            raise ConfigError(
                f"model.distill_token=True: needs the class token as well, which model.pool={self.pool} does not "
                "read; use model.pool=token"
            )
        if not self.has_class_token and self.pool in _CLASS_TOKEN_POOLS:
            raise ConfigError(
                f"model.pool={self.pool}: needs a class token; leave model.class_token out, or set it to true"
            )
        if self.pool == "map" and self.embed_dim % self.num_heads:
            raise ConfigError(
                f"model.pool=map: needs model.num_heads={self.num_heads} to divide model.embed_dim={self.embed_dim} "
                f"(remainder {self.embed_dim % self.num_heads}); change one of the three"
            )
        if self.relative_bias and self.rotary != "none":
            raise ConfigError(
                f"model.relative_bias=True: cannot be combined with model.rotary={self.rotary}; use one of the two"
            )
        if self.relative_bias and self.dynamic_img_size:
            raise ConfigError(
                "model.relative_bias=True: needs a single image size, but model.dynamic_img_size=True allows others; "
                "use model.rotary instead"
            )
