"""A model's name -> its `ModelConfig`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.published import PUBLISHED, TAGS


@dataclass(frozen=True)
class Size:
    """A row of the table: width of a token, blocks, heads, hidden width of the MLP over that of a token."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0


SIZES = {
    # Our own, for images of 8 to 64 px: heads 16 to 32 wide, 0.2 to 2.7 million parameters.
    "pico": Size(64, 4, 4),
    "nano": Size(96, 6, 4),
    "micro": Size(128, 6, 4),
    "mini": Size(192, 6, 6),
    # The field's: tiny and small from DeiT (2012.12877), table 1; base, large and huge from ViT (2010.11929), table 1;
    # giant and gigantic from Zhai et al. (2106.04560), table 2; so400m from Alabdulmohsin et al. (2305.13035), table 1.
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    "giant": Size(1408, 40, 16, 48 / 11),
    "gigantic": Size(1664, 48, 16, 64 / 13),
    "so400m": Size(1152, 27, 16, 3.7362),
    # timm's own, between those.
    "xsmall": Size(256, 10, 4),
    "wee": Size(256, 14, 4, 5.0),
    "little": Size(320, 14, 5, 5.6),
    "medium": Size(512, 12, 8),
    "mediumd": Size(512, 20, 8),
    "betwixt": Size(640, 12, 10),
    "so150m": Size(896, 18, 14, 2.572),
    "so150m2": Size(832, 21, 13, 34 / 13),
}

# Sizes of one family alone, which make no names with others' patches.
_RARE = {
    "giantopt": Size(1536, 40, 16),
    "intern300m": SIZES["large"],
    "huge_plus": Size(1280, 32, 20),
    "7b": Size(4096, 40, 32, 2.0),
}
_GRAMMAR = r"vit_(?P<size>[a-z0-9]+)(?P<rest>(?:_patch(?P<patch>[1-9]\d*)(?:_(?P<px>[1-9]\d*))?)?)"
_PUBLISHED = (
    r"[a-z0-9]+?_(?P<size>[a-z0-9]+?(?:_plus)?)(?:_distilled)?(?:_patch(?P<patch>\d+)(?:_[a-z0-9]+)*?(?:_(?P<px>\d+))?)?"
    r"(?:_miil)?"
)
_ALMOST_PLAIN = r"vit_[a-z0-9]*(_patch\d*)?(_\d*)?"


@dataclass(frozen=True)
class ParsedName:
    """What a model's name says; None where it says nothing.

    Attributes:
        size: Width, depth, heads, MLP.
        patch_size: Side of a patch in px.
        img_size: Side of an image in px.
        changes: Keys of ModelConfig in which a published model differs from the plain one of its size.
    """

    size: Size
    patch_size: int | None
    img_size: int | None
    changes: Mapping[str, Any] = field(default_factory=dict)


def parse_name(name: str) -> ParsedName:
    """Read `vit_{size}`, `vit_{size}_patch{px}`, `vit_{size}_patch{px}_{px}`, or a published name as timm spells it.

    Args:
        name: E.g. `vit_small_patch16_224`, `deit3_base_patch16_224`, `vit_small_patch14_dinov2`. timm's tag of weights
            may follow after a point: `vit_base_patch16_224.mae`.

    Raises:
        UnknownNameError: Not such a name, or no such size; the nearest name is suggested.
    """
    bare, _, tag = name.partition(".")
    changes = {**PUBLISHED.get(bare, {}), **TAGS.get(tag, {})}
    match = re.fullmatch(_PUBLISHED if bare in PUBLISHED else _GRAMMAR, bare)
    sizes = _RARE | SIZES if bare in PUBLISHED else SIZES
    if bare not in PUBLISHED and (match is None or match["size"] not in sizes):
        rest = "_patch16_224" if match is None else match["rest"]
        known = [f"vit_{size}{rest}" for size in SIZES]
        if not re.fullmatch(_ALMOST_PLAIN, bare):
            known += PUBLISHED
        families = sorted({published.partition("_")[0] for published in PUBLISHED})
        hint = f"use a name such as vit_small_patch16_224; known families: {', '.join(f'{f}_…' for f in families)}"
        raise UnknownNameError(f"model={name}: no such model; {nearest(bare, known, hint=hint)}")
    found = {} if match is None else match.groupdict()
    size = sizes.get(found.get("size", ""), SIZES["small"])  # a name that says no size has all of it in its changes
    shape = {key: changes.pop(key) for key in ("embed_dim", "depth", "num_heads", "mlp_ratio") if key in changes}
    patch_size, img_size = (
        changes.pop(key, int(px) if (px := found.get(group)) else None)
        for key, group in (("patch_size", "patch"), ("img_size", "px"))
    )
    return ParsedName(replace(size, **shape), patch_size, img_size, changes)


def config_for(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    drop_path_rate: float = 0.0,
) -> ModelConfig:
    """The configuration behind a name: class token, learned positions, eps 1e-6, MLP x4, unless it says otherwise.

    Args:
        name: As `parse_name` reads it.
        num_classes: Logits; None as the name was published, 1000 where nothing was.
        in_chans: Channels of an image.
        img_size: Side, or height and width, in px; overrides the name's.
        patch_size: Side of a patch in px; overrides the name's.
        drop_path_rate: Stochastic depth of the last block.

    Raises:
        UnknownNameError: No such name.
        ConfigError: Neither name nor argument says the image's or the patch's size, or a value breaks a rule.
    """
    parsed = parse_name(name)
    img_size = parsed.img_size if img_size is None else img_size
    patch_size = parsed.patch_size if patch_size is None else patch_size
    if img_size is None or patch_size is None:
        absent = "image size" if img_size is None else "patch size"
        raise ConfigError(
            f"model={name}: says no {absent}; "
            f"pass img_size and patch_size, or name them, e.g. {'_'.join(name.split('_')[:2])}_patch16_224"
        )
    changes = {"num_classes": 1000, **parsed.changes}
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return ModelConfig(
        img_size=(img_size, img_size) if isinstance(img_size, int) else img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        embed_dim=parsed.size.embed_dim,
        depth=parsed.size.depth,
        num_heads=parsed.size.num_heads,
        mlp_ratio=parsed.size.mlp_ratio,
        drop_path_rate=drop_path_rate,
        **changes,
    )
