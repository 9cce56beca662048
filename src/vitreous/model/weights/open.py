"""Weights file of any supported library -> model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.errors import ConfigError, DamagedFileError, VitreousError
from vitreous.model.build import model_from_state
from vitreous.model.change.reshape import resize_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.files import WeightFile, canonical_names, open_weights
from vitreous.model.weights.formats import recognize
from vitreous.model.weights.native import METADATA_KEY, load_native
from vitreous.model.weights.shapes import check_keys
from vitreous.model.weights.strict import check_plausible, check_shapes, check_values
from vitreous.model.weights.table import Format, Hints, Shapes, compact, expected_shapes, read_tensors
from vitreous.paths import as_path
from vitreous.printable import printable, printable_error, printable_list


def load_model(
    path: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    architecture: Mapping[str, Any] | None = None,
) -> VisionTransformer:
    """Load a model from a file, on the CPU, in evaluation mode.

    The file may come from vitreous, timm, torchvision, transformers, vit-pytorch or Google's code. No code in it is
    executed. It must have exactly the tensors of the model. Image size, number of classes and, for published sizes,
    the number of heads are inferred from the shapes.

    Args:
        path: A `.safetensors`, `.npz`, `.pt`, `.pth`, `.bin` or `.ckpt` file; a folder with one and its `config.json`,
            or with several shards and their index; or `hf://organization/name`.
        name: Name of the model as for `create_model`; needed if neither the file nor its shapes determine the model.
        num_classes: If it differs from the file, the head is replaced by a fresh one with this number; 0 removes it.
        img_size: Height and width in px, or one side. Resamples the positions, as the library of the file does.
        architecture: Keys of ModelConfig that file and name leave open, e.g. `{"num_heads": 4, "act": "relu"}`.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, of unknown format, holds NaN, or its tensors do not match the model.
        ConfigError: An argument does not fit the file, or the file leaves something open.
        MissingDependencyError: `hf://` needs huggingface_hub, which is not installed.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    as_path("path", path)
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            if name is not None or architecture:
                raise ConfigError(f"{path}: already describes its model; remove the arguments name and architecture")
            model = load_native(file.path)
        else:
            model = load_foreign(file, Hints(name, file.settings, architecture or {}, num_classes, size))
    if size is not None and size != model.config.img_size:
        model = resize_model(model, size)
    if num_classes is not None and num_classes != model.config.num_classes:
        model.reset_classifier(num_classes)
    return model.eval()


@dataclass(frozen=True)
class Identified:
    """Format and architecture of a file from another library, known before any tensor is read.

    Attributes:
        format_: The format of the file.
        config: The architecture of the model.
        names: For each tensor that the model needs, its current name -> its name in the file.
        left_out: For each other tensor, its current name -> why the model does not need it.
    """

    format_: Format
    config: ModelConfig
    names: dict[str, str]
    left_out: dict[str, str]


def identify(file: WeightFile, hints: Hints) -> Identified:
    """Find the format and architecture of an open file, and the place of every tensor.

    Raises:
        DamagedFileError: The format is unknown, or the tensors do not match the model.
        ConfigError: The hints do not fit the file, or the file leaves something open.
    """
    check_keys(hints.architecture)
    format_ = recognize(file.path, file.shapes)
    needed, left_out = {}, {}
    names = canonical_names(file.shapes, format_.renames)
    twice = file.shapes.keys() - set(names.values())
    if twice:
        raise DamagedFileError(f"{file.path}: has {printable_list(twice)} under two names; remove one of them")
    for name, stored in names.items():
        reason = next((reason for pattern, reason in format_.skipped.items() if re.search(pattern, name)), None)
        reason = "it is empty" if 0 in file.shapes[stored] else reason
        if reason is None:
            needed[name] = stored
        else:
            left_out[name] = reason
    found = {name: file.shapes[stored] for name, stored in needed.items()}
    config = _read_config(file.path, format_, found, hints)
    check_plausible(file.path, config, found)
    check_shapes(file.path, expected=expected_shapes(format_, config), found=found)
    return Identified(format_, config, needed, left_out)


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


def load_foreign(file: WeightFile, hints: Hints) -> VisionTransformer:
    """Load the model from an open file of another library.

    Raises:
        DamagedFileError: The format is unknown, the tensors do not match the model, or are not finite.
        ConfigError: The hints do not fit the file, or the file leaves something open.
    """
    found = identify(file, hints)
    theirs = {name: file.tensors[stored] for name, stored in found.names.items()}
    check_values(file.path, theirs)
    dtype = _common_dtype(theirs)
    ours = read_tensors(found.format_.rows(found.config), theirs)
    state = {name: compact(tensor.to(dtype)) for name, tensor in ours.items()}
    return model_from_state(found.config, state).eval()


def _common_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype of all tensors, or the widest if they differ."""
    widest, *others = {tensor.dtype for tensor in tensors.values()}
    for dtype in others:
        widest = torch.promote_types(widest, dtype)
    return widest
