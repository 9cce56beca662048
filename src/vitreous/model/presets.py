"""A model's name -> its `ModelConfig`."""

import re
from dataclasses import dataclass

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config import ModelConfig


@dataclass(frozen=True)
class Size:
    """A row of the table: width of a token, blocks, heads."""

    embed_dim: int
    depth: int
    num_heads: int


SIZES = {
    # Our own, for images of 8 to 64 px: heads 16 to 32 wide, 0.2 to 2.7 million parameters.
    "pico": Size(64, 4, 4),
    "nano": Size(96, 6, 4),
    "micro": Size(128, 6, 4),
    "mini": Size(192, 6, 6),
    # The field's: tiny and small from DeiT (2012.12877), table 1; the others from ViT (2010.11929), table 1.
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
}


@dataclass(frozen=True)
class ParsedName:
    """What a model's name says; None where it says nothing."""

    size: Size
    patch_size: int | None
    img_size: int | None


def parse_name(name: str) -> ParsedName:
    """Read `vit_{size}`, `vit_{size}_patch{px}` or `vit_{size}_patch{px}_{px}`, e.g. `vit_small_patch16_224`.

    Raises:
        UnknownNameError: Not such a name, or no such size; the nearest name is suggested.
    """
    match = re.fullmatch(r"vit_([a-z]+)((?:_patch([1-9]\d*)(?:_([1-9]\d*))?)?)", name)
    if match is None or match[1] not in SIZES:
        suffix = "_patch16_224" if match is None else match[2]
        known = [f"vit_{size}{suffix}" for size in SIZES]
        raise UnknownNameError(f"model={name}: no such model; {nearest(name, known)}")
    patch_size, img_size = (int(px) if px else None for px in match.group(3, 4))
    return ParsedName(SIZES[match[1]], patch_size, img_size)


def config_for(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    drop_path_rate: float = 0.0,
) -> ModelConfig:
    """The configuration behind a name: class token, learned positions, eps 1e-6, MLP x4, as timm has them.

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
    return ModelConfig(
        img_size=(img_size, img_size) if isinstance(img_size, int) else img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        num_classes=1000 if num_classes is None else num_classes,
        embed_dim=parsed.size.embed_dim,
        depth=parsed.size.depth,
        num_heads=parsed.size.num_heads,
        drop_path_rate=drop_path_rate,
    )
