"""Tensors under one library's names -> the same under another's: rows of names, and the few transforms they need."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.strict import listed

Shapes = Mapping[str, tuple[int, ...]]
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Codec:
    """How the tensors of a row change on the way; both ways are exact.

    Attributes:
        read: Theirs to ours, each in the order of the row.
        write: Ours to theirs.
    """

    read: Callable[..., Tensors]
    write: Callable[..., Tensors]


@dataclass(frozen=True)
class Row:
    """Tensors that correspond.

    Attributes:
        ours: Names in a vitreous model. None at all where a vitreous model computes or does without what another
            library's must have: that is written, and never read.
        theirs: Names in the file.
        codec: What happens on the way.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    codec: Codec


@dataclass(frozen=True)
class Hints:
    """What is known of a file beside its tensors.

    Attributes:
        name: A model's name, from the user or from the file's description.
        settings: The description itself: a `config.json` beside the file; empty where there is none.
        architecture: Keys of ModelConfig that the user sets; they win.
        num_classes: That the user wants in place of the file's, which then need not be usable; None keeps the file's.
        img_size: Height and width in px that the user wants; theirs where the file does not tell its own.
    """

    name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    img_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Format:
    """One library's way to name and lay out the weights of a Vision Transformer.

    Attributes:
        name: What it is called on the command line.
        recognises: Whether these names are of this format.
        read_config: Shapes by name, and hints, to the configuration that the file was made with.
        rows: A configuration to the table.
        fits: Whether these shapes are, where several formats share the names; it must bear any shape.
        allowed: Field of ModelConfig -> values that the format can hold, None for all of them; others must have their
            default.
        refuses: A configuration to its choices that the format cannot hold beside each other, as `key=value`.
        renames: (pattern, replacement) of older or newer spellings of the same names, applied before all else.
        skipped: Pattern -> what tensors so named are, and why a Vision Transformer does without.
        describe: A configuration to the files that belong beside the weights, by name.
    """

    name: str
    recognises: Callable[[frozenset[str]], bool]
    read_config: Callable[[Shapes, Hints], ModelConfig]
    rows: Callable[[ModelConfig], list[Row]]
    fits: Callable[[Shapes], bool] = lambda shapes: True
    allowed: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    refuses: Callable[[ModelConfig], list[str]] = lambda config: []
    renames: Sequence[tuple[str, str]] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    describe: Callable[[ModelConfig], dict[str, str]] = lambda config: {}


_FREE = {
    # Fields that a format need not name: they are in the shapes, or change nothing that is saved.
    *("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio"),
    *("class_token", "dynamic_img_size", "position_resize", "rotary_theta", "init", "pos_drop_rate", "patch_drop_rate"),
    *("proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_path_schedule"),
}


_NUMBERS = ("layer_scale", "head_dim")
"""Fields of which a format that allows any number but none (0, None) allows all."""


def refusals(format_: Format, config: ModelConfig) -> list[str]:
    """Why a format cannot hold a model: `key=value` of each choice that it has no place for."""
    refused = format_.refuses(config)
    for item in dataclasses.fields(ModelConfig):
        allowed = format_.allowed.get(item.name, None if item.name in _FREE else (item.default,))
        got = getattr(config, item.name)
        if allowed is None:
            continue
        if got not in allowed and not (item.name in _NUMBERS and got and any(allowed)):
            refused.append(f"model.{item.name}={got}")
    return refused


def read_tensors(rows: Sequence[Row], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names, from tensors under theirs; every name of the table must be there."""
    ours: dict[str, Tensor] = {}
    for row in _read(rows):
        ours |= zip(row.ours, row.codec.read(*(theirs[name] for name in row.theirs)), strict=True)
    return ours


def write_tensors(rows: Sequence[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under their names, from tensors under ours.

    Raises:
        ConfigError: A tensor of ours that the table has no place for, or one that it needs and we lack.
    """
    placed = {name for row in rows for name in row.ours}
    for names, why in ((ours.keys() - placed, "have no place in this format"),
                       (placed - ours.keys(), "are needed by this format, and the model has none")):  # fmt: skip
        if names:
            raise ConfigError(f"weights={listed(names)}: {why}; choose another format, or another architecture")
    theirs: dict[str, Tensor] = {}
    dtype = next(iter(ours.values())).dtype
    for row in rows:
        tensors = row.codec.write(*(ours[name] for name in row.ours))
        theirs |= zip(row.theirs, tensors if row.ours else [tensor.to(dtype) for tensor in tensors], strict=True)
    return theirs


def expected_shapes(format_: Format, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the file that a model of this configuration would be written to; allocates nothing."""
    skeleton = build_model(config, device="meta").state_dict()
    written = write_tensors(_read(format_.rows(config)), skeleton)
    return {name: tuple(tensor.shape) for name, tensor in written.items()}


def _read(rows: Sequence[Row]) -> list[Row]:
    """The rows of which a file is read."""
    return [row for row in rows if row.ours]


def own(tensor: Tensor) -> Tensor:
    """The tensor alone and contiguous, not a view that keeps a larger one alive."""
    tensor = tensor.contiguous()
    shared = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if shared else tensor


def row(ours: str | Sequence[str], theirs: str | Sequence[str], codec: Codec | None = None) -> Row:
    """A row; one name may stand for a list of one."""
    names = [(item,) if isinstance(item, str) else tuple(item) for item in (ours, theirs)]
    return Row(names[0], names[1], codec or SAME)


def layer(ours: str, theirs: str, codec: Codec | None = None, *, bias: bool = True) -> list[Row]:
    """The rows of a layer's weight and bias, under the same two names on both sides; `codec` is the weight's."""
    rows = [row(f"{ours}.weight", f"{theirs}.weight", codec)]
    return [*rows, row(f"{ours}.bias", f"{theirs}.bias")] if bias else rows


def stack(count: int) -> Codec:
    """Several tensors of theirs are one of ours, below each other: query, key and value."""
    return Codec(read=lambda *parts: (torch.cat(parts),), write=lambda whole: whole.chunk(count))


def kernel(config: ModelConfig) -> Codec:
    """A patch projection: a convolution's kernel `[dim, chans, px, px]` there, a matrix here."""
    shape = (config.embed_dim, config.in_chans, config.patch_size, config.patch_size)
    return Codec(read=lambda theirs: (theirs.flatten(1),), write=lambda ours: (ours.reshape(shape),))


def position_grid(config: ModelConfig, prefix: Sequence[str]) -> tuple[list[str], Codec]:
    """Our names and the codec of a position table `[1, prefix + patches, dim]`.

    Args:
        config: With learned positions.
        prefix: Our names of the prefix tokens' positions, in the order of the sequence; the registers' holds several.
    """
    rows, columns = config.grid_size
    counts = [config.num_registers if name == "prefix.register_position" else 1 for name in prefix]

    def read(theirs: Tensor) -> Tensors:
        *before, patches = theirs[0].split([*counts, rows * columns])
        singles = [
            part if name == "prefix.register_position" else part[0] for name, part in zip(prefix, before, strict=True)
        ]
        return (*singles, rearrange(patches, "(h w) d -> h w d", h=rows))

    def write(*ours: Tensor) -> Tensors:
        *before, grid = ours
        flat = [torch.atleast_2d(part) for part in before]
        return (torch.cat([*flat, rearrange(grid, "h w d -> (h w) d")])[None],)

    return [*prefix, "position.grid"], Codec(read, write)


def prefix_positions(config: ModelConfig) -> list[str]:
    """Our names of the learned positions that stand before the patches', in the order of the sequence."""
    names = []
    if config.position == "learned" and config.prefix_position != "none":
        names += ["prefix.class_position"] if config.has_class_token else []
        names += ["prefix.distill_position"] if config.distill_token else []
        names += ["prefix.register_position"] if config.num_registers and config.prefix_position == "all" else []
    return names


def _same(tensor: Tensor) -> Tensors:
    return (tensor,)


def _transpose(tensor: Tensor) -> Tensors:
    return (tensor.T,)


SAME = Codec(_same, _same)
TRANSPOSED = Codec(_transpose, _transpose)
VECTOR = Codec(read=lambda theirs: (theirs.flatten(),), write=lambda ours: (ours.reshape(1, 1, -1),))
"""A token `[1, 1, dim]` there, `[dim]` here."""
LISTED = Codec(read=lambda theirs: (theirs[0],), write=lambda ours: (ours[None],))
"""Tokens `[1, count, dim]` there, `[count, dim]` here."""
