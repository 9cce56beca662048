"""Keys and values -> a checked `ModelConfig`: everything that decides a model's shape."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError, UnknownNameError, nearest

Activation = Literal["gelu", "relu"]
PositionKind = Literal["learned", "sinusoidal", "none"]
PoolKind = Literal["token", "mean"]
InitScheme = Literal["timm", "xavier"]

_MOST = 2**31 - 1
_MOST_PATCHES = 1_000_000  # beyond any attention; a typo, or a forged file, must not allocate


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
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        act: Non-linearity of the MLP; `gelu` is the exact one.
        position: How a token knows its place; `sinusoidal` is fixed, `learned` is a grid.
        pool: `token` adds a class token and reads it; `mean` has none and averages the patches.
        init: How fresh weights are drawn; see `init`. `xavier` scales with the width, which narrow models need.
        norm_eps: Added to the variance in every LayerNorm.
        drop_rate: Dropout once, after positions and prefix.
        proj_drop_rate: Dropout on the attention's output and inside the MLP.
        attn_drop_rate: Dropout on the attention probabilities.
        drop_path_rate: Stochastic depth of the last block; earlier blocks ramp up to it from 0.

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
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    act: Activation = "gelu"
    position: PositionKind = "learned"
    pool: PoolKind = "token"
    init: InitScheme = "timm"
    norm_eps: float = 1e-6
    drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.img_size, tuple) or len(self.img_size) != 2:
            raise ConfigError(
                f"data.img_size={self.img_size!r}: must be a height and a width in px; use e.g. (224, 224)"
            )
        for side in self.img_size:
            _check_whole("data.img_size", side, least=1)
        for key in ("patch_size", "in_chans", "embed_dim", "depth", "num_heads"):
            _check_whole(f"model.{key}", getattr(self, key), least=1)
        _check_whole("model.num_classes", self.num_classes, least=0)
        for key in ("mlp_ratio", "norm_eps"):
            _check_positive(f"model.{key}", getattr(self, key))
        for key in ("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"):
            _check_rate(f"model.{key}", getattr(self, key))
        for key, names in (("act", Activation), ("position", PositionKind), ("pool", PoolKind), ("init", InitScheme)):
            _check_choice(f"model.{key}", getattr(self, key), get_args(names))
        if not isinstance(self.qkv_bias, bool):
            raise ConfigError(f"model.qkv_bias={self.qkv_bias!r}: must be a truth value; use true or false")
        self._check_patches()
        self._check_sequence()
        self._check_heads()
        if self.mlp_dim < 1:
            raise ConfigError(
                f"model.mlp_ratio={self.mlp_ratio}: leaves the MLP no hidden unit at model.embed_dim={self.embed_dim}; "
                f"use {1 / self.embed_dim:.2g} or more"
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches in an image."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens that stand before the patches."""
        return 1 if self.pool == "token" else 0

    @property
    def num_tokens(self) -> int:
        """Length of the sequence that the encoder sees."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)

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

    def _check_patches(self) -> None:
        (height, width), side = self.img_size, self.patch_size
        if height % side == 0 and width % side == 0:
            return
        size, remainder = f"{height}x{width}", f"{height % side}x{width % side}"
        if height == width:
            size, remainder = f"{height}", f"{height % side}"
        raise ConfigError(
            f"model.patch_size={side}: does not divide data.img_size={size} (remainder {remainder}); "
            f"use {_listed(_patches_near(side, height, width))}"
        )

    def _check_sequence(self) -> None:
        if self.num_patches > _MOST_PATCHES:
            raise ConfigError(
                f"model.patch_size={self.patch_size}: cuts an image of {self.img_size[0]}x{self.img_size[1]} px into "
                f"{self.num_patches} patches, at most {_MOST_PATCHES} are allowed; use larger patches"
            )

    def _check_heads(self) -> None:
        remainder = self.embed_dim % self.num_heads
        if remainder == 0:
            return
        divisors = _divisors(self.embed_dim)
        near = sorted(sorted(divisors, key=lambda divisor: abs(divisor - self.num_heads))[:3])
        raise ConfigError(
            f"model.num_heads={self.num_heads}: does not divide model.embed_dim={self.embed_dim} "
            f"(remainder {remainder}); use {_listed(near)}"
        )


def _check_whole(key: str, got: object, *, least: int) -> None:
    """Between `least` and what a tensor's side may be, so that no later arithmetic overflows."""
    if isinstance(got, bool) or not isinstance(got, int):
        raise ConfigError(f"{key}={got!r}: must be a whole number; use {least} or more, without quotes or a point")
    if got < least:
        raise ConfigError(f"{key}={got}: must be at least {least}; use {least} or more")
    if got > _MOST:
        raise ConfigError(f"{key}={got}: must be at most {_MOST}; use less")


def _check_positive(key: str, got: object) -> None:
    if isinstance(got, bool) or not isinstance(got, int | float) or not (0 < got <= _MOST):
        example = "0.000001" if "eps" in key else "4.0"
        raise ConfigError(f"{key}={got!r}: must be a number above 0 and at most {_MOST}; use e.g. {example}")


def _check_rate(key: str, got: object) -> None:
    if isinstance(got, bool) or not isinstance(got, int | float) or not (0 <= got < 1):
        raise ConfigError(f"{key}={got!r}: must be a probability below 1; use a number in [0, 1), e.g. 0.1")


def _check_choice(key: str, got: object, names: tuple[str, ...]) -> None:
    if got not in names:
        raise UnknownNameError(f"{key}={got}: no such choice; {nearest(str(got), names)}")


def _patches_near(side: int, height: int, width: int) -> list[int]:
    """The next smaller patch that tiles the image and the next three larger ones, which also cost less to run."""
    tiling = _divisors(math.gcd(height, width))
    if len(tiling) > 2 and height == width:
        tiling.pop()  # one patch for the whole image tiles it too, but leaves nothing to attend to
    smaller, larger = [p for p in tiling if p < side], [p for p in tiling if p > side]
    return smaller[-1:] + larger[:3]


def _divisors(number: int) -> list[int]:
    # Only for suggestions, so an absurdly large number may miss some rather than take minutes.
    low = [divisor for divisor in range(1, min(math.isqrt(number), 10_000) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def _listed(numbers: list[int]) -> str:
    *head, last = map(str, numbers)
    return f"{', '.join(head)} or {last}" if head else last
