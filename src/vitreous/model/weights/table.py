"""Tensors under the names of another library <-> tensors under our names, by a table of names and exact transforms."""

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
from vitreous.wording import printable_list

Shapes = Mapping[str, tuple[int, ...]]
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Codec:
    """A pair of exact transforms between tensors in a file and tensors in our model.

    `read` takes the tensors of the file, in the order of the row, and returns ours; `write` does the opposite.
    """

    read: Callable[..., Tensors]
    write: Callable[..., Tensors]


@dataclass(frozen=True)
class Row:
    """A row of the table: tensors of a file, and the tensors of our model that hold the same values.

    Attributes:
        ours: Names in our model. Empty for a tensor that another library requires but our model computes or does not
            need; it is written to files, and never read from them.
        theirs: Names in the file.
        codec: The transforms between them.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    codec: Codec


@dataclass(frozen=True)
class Hints:
    """Facts about a file that are not in its tensors.

    Attributes:
        name: Name of the model, given by the user.
        settings: The `config.json` in the folder of the file; empty if there is none.
        architecture: Fields of ModelConfig that the user sets; they win over everything else.
        num_classes: Number of classes that the user requests; the head of the file may then be unusable. None keeps
            the head of the file.
        img_size: Height and width in px that the user requests; also taken as the size of the file if that is unknown.
        weights: Which of several models in the file to read, see `choose_part`.
    """

    name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    img_size: tuple[int, int] | None = None
    weights: str = "auto"


@dataclass(frozen=True)
class Format:
    """How one library names and lays out the weights of a Vision Transformer.

    Attributes:
        name: Name of the format, as shown to users.
        recognizes: Takes the names in a file and returns True if they are of this format.
        read_config: Takes shapes by name, also of skipped tensors, and hints, and returns the configuration of the
            model in the file.
        rows: Takes a configuration and returns the table of tensor names.
        fits: Takes shapes by name and returns True if they are of this format; separates formats with equal names. Must
            not fail on any shape.
        allowed: Field of ModelConfig -> values that the format can hold; None allows all. Fields that are not listed
            must have their default.
        refuses: Takes a configuration and returns the choices that the format cannot hold together, as `key=value`.
        renames: (pattern, replacement) that turn names of older or newer versions into the current ones.
        skipped: Pattern of names -> why our model does not need such tensors.
        parts: First parts of names that belong to the model even if its configuration has none of them.
        assumed: Fields of ModelConfig that no tensor of the format shows.
        describe: Takes a configuration and returns further files to write next to the weights, text by file name.
    """

    name: str
    recognizes: Callable[[frozenset[str]], bool]
    read_config: Callable[[Shapes, Hints], ModelConfig]
    rows: Callable[[ModelConfig], list[Row]]
    fits: Callable[[Shapes], bool] = lambda shapes: True
    allowed: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    refuses: Callable[[ModelConfig], list[str]] = lambda config: []
    renames: Sequence[tuple[str, str]] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    assumed: Sequence[str] = ("num_heads", "act", "norm_eps", "img_size")
    describe: Callable[[ModelConfig], dict[str, str]] = lambda config: {}


TRAINING_ONLY = frozenset(
    ("pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_path_schedule")
)
"""Fields of ModelConfig that matter only in training: weights fit any value of them."""
_ALWAYS_ALLOWED = TRAINING_ONLY | {
    *("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio"),
    *("class_token", "dynamic_img_size", "position_resize", "rotary_theta", "init"),
}
"""Fields that every format can hold: the shapes show them, or no saved tensor depends on them."""
_NUMBERS = ("layer_scale", "head_dim")
"""Fields for which a format that allows some number other than off (0 or None) allows every number."""


def refusals(format_: Format, config: ModelConfig) -> list[str]:
    """List the choices of a configuration that a format cannot hold, as `key=value`; empty if it can hold the model."""
    refused = format_.refuses(config)
    for item in dataclasses.fields(ModelConfig):
        allowed = format_.allowed.get(item.name, None if item.name in _ALWAYS_ALLOWED else (item.default,))
        got = getattr(config, item.name)
        if allowed is None:
            continue
        if got not in allowed and not (item.name in _NUMBERS and got and any(allowed)):
            refused.append(f"model.{item.name}={got}")
    return refused


def read_tensors(rows: Sequence[Row], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn tensors under the names of a file into tensors under our names. All names in the table must be given."""
    ours: dict[str, Tensor] = {}
    for row in _readable(rows):
        ours |= zip(row.ours, row.codec.read(*(theirs[name] for name in row.theirs)), strict=True)
    return ours


def write_tensors(rows: Sequence[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn tensors under our names into tensors under the names of a file.

    Raises:
        ConfigError: The table lacks one of our tensors, or needs one that we do not have.
    """
    placed = {name for row in rows for name in row.ours}
    faults = {
        "this format cannot hold them": ours.keys() - placed,
        "this format needs them, but the model does not have them": placed - ours.keys(),
    }
    for fault, names in faults.items():
        if names:
            raise ConfigError(f"weights={printable_list(names)}: {fault}; use another format or architecture")
    theirs: dict[str, Tensor] = {}
    dtype = next(iter(ours.values())).dtype
    for row in rows:
        tensors = row.codec.write(*(ours[name] for name in row.ours))
        theirs |= zip(row.theirs, tensors if row.ours else [tensor.to(dtype) for tensor in tensors], strict=True)
    return theirs


def expected_shapes(format_: Format, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the file that a model of this configuration would give. Allocates no memory."""
    skeleton = build_model(config, device="meta").state_dict()
    written = write_tensors(_readable(format_.rows(config)), skeleton)
    return {name: tuple(tensor.shape) for name, tensor in written.items()}


def _readable(rows: Sequence[Row]) -> list[Row]:
    """Leave out rows that are only written."""
    return [row for row in rows if row.ours]


def compact(tensor: Tensor) -> Tensor:
    """Return the tensor contiguous, copied if it is a view that would keep a larger tensor in memory."""
    tensor = tensor.contiguous()
    shared = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if shared else tensor


def row(ours: str | Sequence[str], theirs: str | Sequence[str], codec: Codec | None = None) -> Row:
    """Build a row. A single name may be given without a list; `codec` defaults to no change."""
    names = [(item,) if isinstance(item, str) else tuple(item) for item in (ours, theirs)]
    return Row(names[0], names[1], codec or SAME)


def layer(ours: str, theirs: str, codec: Codec | None = None, *, bias: bool = True) -> list[Row]:
    """Build the rows of a layer with `weight` and `bias`; `codec` applies to the weight only."""
    rows = [row(f"{ours}.weight", f"{theirs}.weight", codec)]
    return [*rows, row(f"{ours}.bias", f"{theirs}.bias")] if bias else rows


def stacked(ours: str, theirs: Sequence[str], *, bias: bool = True) -> list[Row]:
    """Build the rows of one layer of our model that is several layers in the file, such as gate and value of an MLP."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [row(f"{ours}.{kind}", [f"{name}.{kind}" for name in theirs], stack(len(theirs))) for kind in kinds]


def stack(count: int) -> Codec:
    """Stack `count` tensors of the file into one of ours, as for query, key and value."""
    return Codec(read=lambda *parts: (torch.cat(parts),), write=lambda whole: whole.chunk(count))


def chain(first: Codec, second: Codec) -> Codec:
    """Apply two codecs in this order when reading, and in reverse when writing."""
    return Codec(
        read=lambda *theirs: second.read(*first.read(*theirs)), write=lambda *ours: first.write(*second.write(*ours))
    )


def kernel(config: ModelConfig) -> Codec:
    """Turn the convolution kernel of a patch projection, `[dim, chans, px, px]`, into our matrix."""
    shape = (config.embed_dim, config.in_chans, config.patch_size, config.patch_size)
    return Codec(read=lambda theirs: (theirs.flatten(1),), write=lambda ours: (ours.reshape(shape),))


def learned_positions(config: ModelConfig, theirs: str, *, batched: bool = True) -> Row:
    """Build the row of the learned positions, which a file has as one table in the order of the sequence.

    The table is `[1, prefix + patches, dim]`, or `[prefix + patches, dim]` unless it is batched.
    """
    rows, prefix = config.grid_size[0], prefix_positions(config)
    counts = [config.num_registers if name == "prefix.register_position" else 1 for name in prefix]

    def read(table: Tensor) -> Tensors:
        *before, patches = (table[0] if batched else table).split([*counts, config.num_patches])
        singles = [
            part if name == "prefix.register_position" else part[0] for name, part in zip(prefix, before, strict=True)
        ]
        return (*singles, rearrange(patches, "(h w) d -> h w d", h=rows))

    def write(*ours: Tensor) -> Tensors:
        *before, grid = ours
        table = torch.cat([*map(torch.atleast_2d, before), rearrange(grid, "h w d -> (h w) d")])
        return (table[None] if batched else table,)

    return row([*prefix, "position.grid"], theirs, Codec(read, write))


def prefix_positions(config: ModelConfig) -> list[str]:
    """Return our names of the learned positions of prefix tokens, in the order of the sequence."""
    names = []
    if config.position == "learned" and config.prefix_position != "none":
        names += ["prefix.class_position"] if config.has_class_token else []
        names += ["prefix.distill_position"] if config.distill_token else []
        names += ["prefix.register_position"] if config.num_registers and config.prefix_position == "all" else []
    return names


SAME = Codec(read=lambda theirs: (theirs,), write=lambda ours: (ours,))
TRANSPOSED = Codec(read=lambda theirs: (theirs.T,), write=lambda ours: (ours.T,))
VECTOR = Codec(read=lambda theirs: (theirs.flatten(),), write=lambda ours: (ours.reshape(1, 1, -1),))
"""For a token that is `[1, 1, dim]` in the file and `[dim]` in our model."""
BATCHED = Codec(read=lambda theirs: (theirs[0],), write=lambda ours: (ours[None],))
"""For tokens that are `[1, ...]` in the file and have no such axis in our model."""
