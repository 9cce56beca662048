"""Weights file of any supported library -> model."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from vitreous.errors import AssumptionWarning, ConfigError, DamagedFileError, VitreousError
from vitreous.model.build import model_from_state
from vitreous.model.change.reshape import resize_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import METADATA_KEY, load_native
from vitreous.model.weights.reading.files import WeightFile, open_weights
from vitreous.model.weights.reading.strict import check_plausible, check_shapes, check_values
from vitreous.model.weights.shapes import check_keys, shown, side_by_side
from vitreous.model.weights.subtree import Part, choose_part, others
from vitreous.model.weights.table import Format, Hints, Shapes, compact, expected_shapes, read_tensors
from vitreous.paths import as_path
from vitreous.wording import printable, printable_error, printable_list

_IMPLIES = {"head_dim": "num_heads"}
"""Field that the user gives -> field that follows from it and the shapes."""


def load_model(
    path: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    architecture: Mapping[str, Any] | None = None,
    weights: str = "auto",
    dtype: torch.dtype | None = torch.float32,
) -> VisionTransformer:
    """Load a model from a file, on the CPU, in evaluation mode.

    The file may come from vitreous, timm, torchvision, transformers, OpenCLIP, DINO, vit-pytorch or Google's code, also
    as the checkpoint of a training run. No code in it is executed: objects other than tensors and plain values are
    ignored. What no tensor shows, such as the number of heads or the activation, is taken from `name`, `architecture`
    or a `config.json`. What remains is assumed, which one AssumptionWarning lists, or asked for by an error.

    Args:
        path: A `.safetensors`, `.npz`, `.pt`, `.pth`, `.bin` or `.ckpt` file; a folder with one and its `config.json`,
            or with several shards and their index; or `hf://organization/name`.
        name: Name of the model as for `create_model`; needed if neither the file nor its shapes determine the model.
        num_classes: If it differs from the file, the head is replaced by a fresh one with this number; 0 removes it.
        img_size: Height and width in px, or one side. Resamples the positions, as the library of the file does.
        architecture: Keys of ModelConfig that file and name leave open, e.g. `{"num_heads": 4, "act": "relu"}`.
        weights: Which weights of a checkpoint to read: `raw`, `ema` (an average of them, or a teacher), `auto` (`ema`
            if there are any), or the name of a part of the file, such as `student.backbone`.
        dtype: Type of the weights; None keeps that of the file.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, of unknown format, holds NaN, or its tensors do not match the model.
        ConfigError: An argument does not fit the file, or the file leaves something open.
        MissingDependencyError: `hf://` needs huggingface_hub, which is not installed.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    as_path("path", path)
    opened = open_model(path, Hints(name, {}, architecture or {}, num_classes, size, weights))
    if opened.notes:
        warnings.warn(f"{path}: {'; '.join(opened.notes)}", AssumptionWarning, stacklevel=2)
    return opened.model if dtype is None else opened.model.to(dtype)


@dataclass(frozen=True)
class Opened:
    """A model from a file, in the dtype of the file, and in evaluation mode.

    `assumed` are the fields of ModelConfig that neither the file nor the user gave; notes are one sentence each.
    """

    model: VisionTransformer
    notes: Sequence[str] = ()
    assumed: Mapping[str, Any] = field(default_factory=dict)


def open_model(path: str | Path, hints: Hints) -> Opened:
    """Do what `load_model` does, without a warning and in the dtype of the file. Raises like `load_model`."""
    size = hints.img_size
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            if hints.name is not None or hints.architecture or hints.weights != "auto":
                raise ConfigError(f"{path}: already describes its model; leave out name, architecture and weights")
            opened = Opened(load_native(file.path))
        else:
            found = identify(file, replace(hints, settings=file.settings))
            opened = Opened(load_foreign(file, found), found.notes, found.assumed)
    model = opened.model
    if size is not None and size != model.config.img_size:
        model = resize_model(model, size)
    if hints.num_classes is not None and hints.num_classes != model.config.num_classes:
        model.reset_classifier(hints.num_classes)
    return replace(opened, model=model.eval())


@dataclass(frozen=True)
class Identified:
    """Format and architecture of a file from another library, known before any tensor is read.

    Attributes:
        format_: The format of the file.
        config: The architecture of the model.
        names: For each tensor that the model needs, its current name -> its name in the file.
        left_out: For each other tensor of the model, its current name -> why the model does not need it.
        other_parts: Summary of all other tensors in the file, such as heads, students or the state of an optimizer.
        assumed: Field of ModelConfig -> its value, for each field that neither the file nor the user gives.
        notes: What is assumed, one sentence each, for a warning.
    """

    format_: Format
    config: ModelConfig
    names: dict[str, str]
    left_out: dict[str, str]
    other_parts: list[str]
    assumed: dict[str, Any]
    notes: list[str]


def identify(file: WeightFile, hints: Hints) -> Identified:
    """Find the format and architecture of an open file, and the place of every tensor.

    Raises:
        DamagedFileError: The format is unknown, or the tensors do not match the model.
        ConfigError: The hints do not fit the file, or the file leaves something open.
    """
    check_keys(hints.architecture)
    part, rivals = choose_part(file, hints.weights)
    format_, names = part.format_, part.names_in(file.shapes)
    twice = {name for name in file.shapes if name.startswith(part.root)} - set(names.values())
    if twice:
        raise DamagedFileError(f"{file.path}: has {printable_list(twice)} under two names; remove one of them")
    left_out = {}
    for name, stored in names.items():
        reason = next((reason for pattern, reason in format_.skipped.items() if re.search(pattern, name)), None)
        reason = "it is empty" if 0 in file.shapes[stored] else reason
        if reason is not None:
            left_out[name] = reason
    needed = {name: stored for name, stored in names.items() if name not in left_out}
    present = {name: stored for name, stored in names.items() if 0 not in file.shapes[stored]}
    config = _read_config(file.path, format_, _shapes_of(file, present), hints)
    check_plausible(file.path, config, _shapes_of(file, needed))
    expected = expected_shapes(format_, config)
    known = {_first_part(name) for name in expected} | format_.parts
    strangers = {name for name in needed if _is_in_module(name) and _first_part(name) not in known}
    needed = {name: stored for name, stored in needed.items() if name not in strangers}
    unbuilt = part.names_in(file.objects)
    odd = [f"{name} is {file.objects[unbuilt[name]]}" for name in expected.keys() & unbuilt.keys() - needed.keys()]
    if odd:
        raise DamagedFileError(
            f"{file.path}: has something else in place of a tensor ({printable_list(odd)}); save dense tensors instead"
        )
    check_shapes(file.path, expected=expected, found=_shapes_of(file, needed))
    unread = file.shapes.keys() - set(needed.values()) - {names[name] for name in left_out}
    assumed = _assumptions(format_, config, hints)
    notes = [_choice_note(part, rivals)] if rivals and hints.weights == "auto" else []
    notes += [f"left out {printable_list(others((names[name] for name in strangers), part.root))}"] if strangers else []
    notes += [_assumption_note(assumed, config)] if assumed else []
    return Identified(format_, config, needed, left_out, others(unread, part.root), assumed, notes)


def _shapes_of(file: WeightFile, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {name: file.shapes[stored] for name, stored in names.items()}


def _first_part(name: str) -> str:
    return re.split(r"[./]", name, maxsplit=1)[0]


def _is_in_module(name: str) -> bool:
    """Return True unless a tensor belongs to the model itself, as tokens and tables do that its forward pass reads."""
    return _first_part(name) != name


def _assumptions(format_: Format, config: ModelConfig, hints: Hints) -> dict[str, Any]:
    """Return the fields of ModelConfig that neither tensors nor description nor user determine, with their values."""
    if hints.name is not None or hints.settings.keys() & {"architecture", "model_type", "model_cfg"}:
        return {}  # a published model, or one that its description defines
    given = {*hints.architecture, *(_IMPLIES[key] for key in hints.architecture if key in _IMPLIES)}
    if config.position != "learned":
        given |= {"img_size"}  # the user had to give it
    return {key: getattr(config, key) for key in format_.assumed if key not in given}


def _assumption_note(assumed: dict[str, Any], config: ModelConfig) -> str:
    """Describe assumptions in one sentence that says how to replace them."""
    texts = [f"{key}={shown(value)}" for key, value in assumed.items()]
    if "img_size" in assumed:
        rows, columns = config.grid_size
        wide = (side_by_side(rows * columns, square=False)[::-1], side_by_side(rows * columns, square=False))
        others = " or ".join(shown(grid) for grid in dict.fromkeys(wide) if grid != (rows, columns))
        place = list(assumed).index("img_size")
        texts[place] += f" (a grid of {rows}x{columns} patches, not {others})" if others else ""
    return (
        f"assumes {', '.join(texts)}, and the usual order of class token, queries, keys and values, because no tensor "
        "shows them; set architecture={KEY: VALUE}, or --architecture.KEY VALUE, if that is wrong"
    )


def _choice_note(part: Part, rivals: Sequence[str]) -> str:
    kind = "averaged weights or a teacher" if part.is_averaged else "raw weights"
    return f"reads {printable(part.shown)}, {kind}, not {printable_list(rivals)}; weights=raw or weights=NAME chooses"


def _read_config(path: Path, format_: Format, found: Shapes, hints: Hints) -> ModelConfig:
    try:
        return format_.read_config(found, hints)
    except VitreousError:
        raise
    except KeyError as error:
        raise DamagedFileError(
            f"{path}: has the format {format_.name}, but lacks {printable(str(error.args[0]))}; it is cut short, or "
            "one shard of several: download all of it"
        ) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        # A tensor has a known name, but the wrong number of dimensions, or no values.
        raise DamagedFileError(
            f"{path}: has the format {format_.name}, but its shapes fit no architecture ({printable_error(error)}); "
            "download it again"
        ) from error


def load_foreign(file: WeightFile, found: Identified) -> VisionTransformer:
    """Load the identified model from an open file of another library.

    Raises:
        DamagedFileError: A tensor cannot be read, or has values that are not finite.
    """
    theirs = {name: file.read(stored) for name, stored in found.names.items()}
    check_values(file.path, theirs)
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in theirs.values()))  # the widest if they differ
    ours = read_tensors(found.format_.rows(found.config), theirs)
    state = {name: compact(tensor.to(dtype)) for name, tensor in ours.items()}
    return model_from_state(found.config, state).eval()
