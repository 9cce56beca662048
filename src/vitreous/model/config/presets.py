"""Model name -> ModelConfig."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.published import PUBLISHED, TAGS
from vitreous.ranges import check_value, rule_of
from vitreous.wording import printable


@dataclass(frozen=True)
class Size:
    """Token width, number of blocks, heads per block, and hidden width of the MLP as a multiple of the token width."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0


SIZES = {
    # Our own sizes for images of 8 to 64 px, with heads 16 to 32 wide and 0.2 to 2.7 million parameters.
    "pico": Size(64, 4, 4),
    "nano": Size(96, 6, 4),
    "micro": Size(128, 6, 4),
    "mini": Size(192, 6, 6),
    # Established sizes: tiny and small of DeiT (2012.12877), table 1; base, large, huge of ViT (2010.11929), table 1;
    # giant and gigantic from Zhai et al. (2106.04560), table 2; so400m from Alabdulmohsin et al. (2305.13035), table 1.
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    "giant": Size(1408, 40, 16, 48 / 11),
    "gigantic": Size(1664, 48, 16, 64 / 13),
    "so400m": Size(1152, 27, 16, 3.7362),
    # Sizes that timm defines between those.
    "xsmall": Size(256, 10, 4),
    "wee": Size(256, 14, 4, 5.0),
    "little": Size(320, 14, 5, 5.6),
    "medium": Size(512, 12, 8),
    "mediumd": Size(512, 20, 8),
    "betwixt": Size(640, 12, 10),
    "so150m": Size(896, 18, 14, 2.572),
    "so150m2": Size(832, 21, 13, 34 / 13),
}

# Sizes of a single model family, which cannot be combined with other patch sizes in a name.
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
    """Size, patch size, image size and architecture changes that the name of a model specifies.

    Sizes are in px, and None if the name does not contain them. `changes` are the fields of ModelConfig in which a
    published model differs from the standard ViT of its size.
    """

    size: Size
    patch_size: int | None
    img_size: int | None
    changes: Mapping[str, Any]


def parse_name(name: str) -> ParsedName:
    """Read `vit_{size}`, `vit_{size}_patch{px}`, `vit_{size}_patch{px}_{px}`, or a published name as timm spells it.

    timm's tag of weights may follow after a dot: `vit_base_patch16_224.mae`.

    Raises:
        UnknownNameError: The name or its size does not exist; the message suggests the nearest name.
    """
    check_value("model", name, rule_of(str))
    bare, _, tag = name.partition(".")
    changes = {**PUBLISHED.get(bare, {}), **TAGS.get(tag, {})}
    match = re.fullmatch(_PUBLISHED if bare in PUBLISHED else _GRAMMAR, bare)
    sizes = _RARE | SIZES if bare in PUBLISHED else SIZES
    if bare not in PUBLISHED and (match is None or match["size"] not in sizes):
        rest = "_patch16_224" if match is None else match["rest"]
        known = [f"vit_{size}{rest}" for size in SIZES]
        likely = bare.lower().replace("-", "_")
        if match is None and likely.startswith("vit"):
            known += [f"vit_{size}" for size in SIZES]
        if not re.fullmatch(_ALMOST_PLAIN, likely):
            known += PUBLISHED
        families = sorted({published.partition("_")[0] for published in PUBLISHED})
        hint = f"use a name such as vit_small_patch16_224; known families: {', '.join(f'{f}_…' for f in families)}"
        raise UnknownNameError(f"model={printable(name)}: no such model; {nearest(likely, known, hint=hint)}")
    found = {} if match is None else match.groupdict()
    size = sizes.get(found.get("size", ""), SIZES["small"])  # Models whose name has no size define it in their changes.
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
) -> ModelConfig:
    """Return the configuration of a named model.

    What the name does not specify follows the standard ViT: class token, learned position embeddings, eps 1e-6, MLP
    ratio 4. By default, the number of classes is that of the published model, or 1000, and sizes in px are those in the
    name.

    Raises:
        UnknownNameError: There is no such model.
        ConfigError: Image size or patch size is given neither by the name nor by an argument, or a value breaks a rule.
    """
    parsed = parse_name(name)
    img_size = parsed.img_size if img_size is None else img_size
    patch_size = parsed.patch_size if patch_size is None else patch_size
    if img_size is None or patch_size is None:
        absent = "image size" if img_size is None else "patch size"
        raise ConfigError(
            f"model={name}: does not specify the {absent}; pass img_size and patch_size, or put them into the name, "
            f"e.g. {'_'.join(name.partition('.')[0].split('_')[:2])}_patch16_224"
        )
    changes = {"num_classes": 1000, **parsed.changes}
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return ModelConfig(
        img_size=(img_size, img_size) if isinstance(img_size, int) else img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        **asdict(parsed.size),
        **changes,
    )
