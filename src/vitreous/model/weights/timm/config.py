"""Tensor shapes under timm's names, hints -> ModelConfig."""

from collections.abc import Mapping
from typing import Any

from vitreous.errors import ConfigError, OpenQuestionError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.config.published import TIMM_POOLS
from vitreous.model.weights.shapes import count_blocks, is_square, resolve, side_of, way_out
from vitreous.model.weights.table import Hints, Shapes
from vitreous.wording import printable_value

THETA_ROWS_FIRST = 10_000.0
"""timm's default rotary base. Models with it encode rows before columns, RoPE-ViT with base 100 columns before rows."""
_ARGUMENTS = {"num_heads": "num_heads", "act_layer": "act", "rope_temperature": "rotary_theta"}
"""Arguments of timm's models that no tensor shows -> our fields."""
_PREFIX = frozenset(("cls_token", "dist_token", "reg_token"))
_ROTARY: Mapping[str, Mapping[str, Any]] = {
    "none": {"use_rot_pos_emb": False},
    "axial": {"rope_type": "cat", "rope_rotate_half": False, "rope_grid_offset": 0, "ref_feat_shape": None},
    "mixed": {"rope_type": "mixed", "rope_rotate_half": False, "rope_grid_indexing": "xy"},
    "dinov3": {"rope_type": "dinov3", "rope_rotate_half": True, "rope_grid_offset": 0, "rope_grid_indexing": "ij"},
}
"""Our rotary positions -> the arguments with which timm computes the same."""


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Find the configuration by the name of the model, with sizes from the shapes; without a name by shapes only.

    Raises:
        UnknownNameError: There is no model of this name.
        ConfigError: The number of heads, the image size or the kind of rotary positions is unknown, or our models do
            not have the pool of `config.json`.
    """
    described = hints.settings.get("architecture")
    name = hints.name or (described if isinstance(described, str) else None)
    sizes = _sizes(shapes)
    given_size = hints.architecture.get("img_size")
    img_size = tuple(given_size) if isinstance(given_size, list | tuple) else _size_in_settings(hints)
    base = _fields_from_shapes(shapes) if name is None else _published_fields(name, sizes, img_size)
    arguments = hints.settings.get("model_args")
    if isinstance(arguments, Mapping) and arguments and name == described:
        base = _with_arguments(base, arguments, shapes)
    if "pos_embed" in shapes:
        expected = hints.architecture.get("prefix_position", base.get("prefix_position"))
        sizes |= _read_positions(shapes, sizes["patch_size"], img_size, expected, is_given=given_size is not None)
    elif name is None:
        sizes["img_size"] = img_size
    values = {**base, **sizes, **_pooling(shapes, hints, base)}
    reads_class = values["pool"] == "token"
    values["class_token"] = None if reads_class == ("cls_token" in shapes) else "cls_token" in shapes
    return resolve(values if name else _with_rotary(values, shapes, hints), hints)


def is_eva(names: frozenset[str]) -> bool:
    """Return True if the names are of `eva.py`: it has its own names for scales and biases, or no position table."""
    marks = {"blocks.0.gamma_1", "blocks.0.attn.q_bias", "rope.freqs"}
    return "patch_embed.proj.weight" in names and (bool(names & marks) or "pos_embed" not in names)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields that the name of a model leaves open."""
    _, in_chans, patch_size, _ = shapes["patch_embed.proj.weight"]
    num_classes = shapes["head.weight"][0] if "head.weight" in shapes else 0
    return {"patch_size": patch_size, "in_chans": in_chans, "num_classes": num_classes}


def _published_fields(name: str, sizes: Mapping[str, Any], img_size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the fields of a published model."""
    try:
        config = config_for(name, **sizes, img_size=img_size)
    except ConfigError:
        # The name has no image size, or one that the patches do not tile. Any size will do: the position table takes
        # precedence.
        config = config_for(name, **sizes, img_size=16 * sizes["patch_size"])
    return config.as_dict()


def _with_arguments(published: dict[str, Any], arguments: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the fields of a published model that is built with other arguments, most of which the shapes show."""
    shown = _fields_from_shapes(shapes)
    del shown["norm_eps"], published["prefix_position"]
    if shown["mlp"] == published["mlp"]:
        del shown["act"]
    given = {ours: arguments[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in arguments}
    rotary = {"rotary": "none"} if arguments.get("use_rot_pos_emb") is False else {}
    fields = {**published, **shown, **given, **rotary}
    indexing = "ij" if published["rotary"] == "dinov3" else grid_indexing(published["rotary_theta"])
    _check_arguments(fields["rotary"], fields["rotary_theta"], {"rope_grid_indexing": indexing, **arguments})
    _check_pool(fields["num_heads"], shapes, arguments)
    return fields


def grid_indexing(theta: float) -> str:
    """Return timm's name for the order of the axes in our axial positions: `ij` for rows first, `xy` for columns."""
    return "ij" if theta == THETA_ROWS_FIRST else "xy"


def _check_arguments(rotary: str, theta: float, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for an argument of timm that no tensor shows, and with which our model would differ."""
    needed: dict[str, Any] = {"use_post_norm": False, **_ROTARY[rotary]}
    if rotary == "axial":
        needed["rope_grid_indexing"] = grid_indexing(theta)
    _check_equal(arguments, needed)


def _check_pool(num_heads: object, shapes: Shapes, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError if timm's pool has other heads than the blocks, or reads the prefix tokens."""
    needed: dict[str, Any] = {}
    if "attn_pool.latent" in shapes and arguments.get("attn_pool_num_heads"):
        needed["attn_pool_num_heads"] = num_heads
    if _PREFIX & shapes.keys() and arguments.get("global_pool") != "token":
        needed["pool_include_prefix"] = False
    _check_equal(arguments, needed)


def _check_equal(arguments: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    for key, value in needed.items():
        if arguments.get(key, value) != value:
            raise ConfigError(
                f"config.json.model_args.{key}={printable_value(arguments[key])}: our model has {value!r}, so its "
                "outputs would differ; open this file with timm"
            )


def _size_in_settings(hints: Hints) -> tuple[int, int] | None:
    """Return height and width in px from a `config.json` of timm; None if it gives none."""
    described = hints.settings.get("pretrained_cfg", hints.settings)
    found = described.get("input_size") if isinstance(described, Mapping) else None
    return (found[1], found[2]) if isinstance(found, list) and len(found) == 3 else None


def _fields_from_shapes(shapes: Shapes) -> dict[str, Any]:
    """Infer the architecture of a file without a name; what shapes cannot show is assumed to be the usual choice."""
    width = shapes["patch_embed.proj.weight"][0]
    fc1_width = sum(shapes.get(f"blocks.0.mlp.{name}.weight", (0,))[0] for name in ("fc1", "fc1_g", "fc1_x"))
    hidden = shapes.get("blocks.0.mlp.fc2.weight", (width, 4 * width))[1]
    gated, is_clip = fc1_width == 2 * hidden, "norm_pre.weight" in shapes
    return {
        "embed_dim": width,
        "depth": count_blocks(shapes, r"^blocks\.(\d+)\."),
        "distill_token": "dist_token" in shapes,
        "num_registers": _num_registers(shapes),
        "position": "learned" if "pos_embed" in shapes else "none",
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "patch_norm": "patch_embed.norm.weight" in shapes,
        "embed_norm": is_clip,
        "norm_eps": 1e-5 if is_clip else 1e-6,
        "norm": "layer" if "blocks.0.norm1.bias" in shapes else "rms",
        "qkv_bias": bool({"blocks.0.attn.qkv.bias", "blocks.0.attn.q_bias"} & shapes.keys()),
        "key_bias": "blocks.0.attn.q_bias" not in shapes,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "proj_bias": "blocks.0.attn.proj.bias" in shapes,
        "mlp": "gated" if gated else "plain",
        "act": "silu" if gated else "gelu",
        "mlp_ratio": hidden / width,
        "mlp_bias": "blocks.0.mlp.fc2.bias" in shapes,
        "layer_scale": 1e-5 if {"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys() else 0.0,
    }


def _num_registers(shapes: Shapes) -> int:
    return shapes["reg_token"][1] if "reg_token" in shapes else 0


def _read_positions(
    shapes: Shapes, patch_size: int, img_size: tuple[int, int] | None, expected: str | None, *, is_given: bool
) -> dict[str, Any]:
    """Infer image size and `prefix_position`: does the position table include the prefix tokens?

    `img_size` is the height and width in px that the user gives, or `config.json`, which is believed only if the table
    has this number of patches; without it, a square is assumed. `expected` is the `prefix_position` that the user or
    the name of the model gives; None chooses the one that leaves a square of patches, and prefers positions for prefix
    tokens if both do.
    """
    total, registers = shapes["pos_embed"][1], _num_registers(shapes)
    num_prefix = ("cls_token" in shapes) + ("dist_token" in shapes) + registers
    included = "all" if registers else "class"
    if img_size is not None:
        rows, columns = (px // patch_size for px in img_size)
        if is_given or rows * columns in (total, total - num_prefix):
            size = img_size if is_given else (rows * patch_size, columns * patch_size)
            is_bare = num_prefix > 0 and total == rows * columns
            return {"img_size": size, "prefix_position": "none" if is_bare else included}
    choices = {included: total - num_prefix, **({"none": total} if num_prefix else {})}
    squares = [choice for choice, left in choices.items() if left > 0 and is_square(left)]
    choice = expected if expected in choices else (squares or [included])[0]
    side = side_of(choices[choice], patch_size) * patch_size
    return {"img_size": (side, side), "prefix_position": choice}


def _pooling(shapes: Shapes, hints: Hints, base: Mapping[str, Any]) -> dict[str, Any]:
    """Infer the pool and the norms around it, which users of timm can choose for any model."""
    named = hints.settings.get("global_pool")
    described = TIMM_POOLS.get(str(named))
    if named and described is None and "pool" not in hints.architecture:
        raise ConfigError(
            f"config.json.global_pool={printable_value(named)}: our models have no such pool; to use another one, pass "
            + way_out("pool", "mean")
        )
    has_norm = "fc_norm.weight" in shapes
    usual = base.get("pool", "token" if "cls_token" in shapes and not has_norm else "mean")
    pool = described or ("mean" if has_norm and usual not in ("mean", "max") else usual)
    if ("attn_pool.latent" in shapes) != (pool == "map"):
        pool = "map" if "attn_pool.latent" in shapes else "mean"
    if pool == "map" and is_eva(frozenset(shapes)) and _PREFIX & shapes.keys() and "pool" not in hints.architecture:
        raise ConfigError(
            "pool=map: this model's pool reads class token and registers, too, and ours only patches, so its outputs "
            "would differ; open this file with timm"
        )
    return {"pool": pool, "final_norm": "norm.weight" in shapes, "fc_norm": has_norm}


def _with_rotary(values: dict[str, Any], shapes: Shapes, hints: Hints) -> dict[str, Any]:
    """Add the rotary positions of a model without a name; raise ConfigError if the file does not determine them."""
    if "rope.freqs" in shapes:
        return values | {"rotary": "mixed", "rotary_theta": 10.0, "num_heads": shapes["rope.freqs"][2]}
    if "rotary" in hints.architecture or not is_eva(frozenset(shapes)):
        return values
    raise OpenQuestionError(
        "rotary=None: the kind of rotary positions is not known from the tensors; pass the model's name, or "
        + way_out("rotary", "axial"),
        "rotary",
        "axial",
    )
