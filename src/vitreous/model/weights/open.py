"""A file of anybody's weights -> a model."""

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
from vitreous.model.weights.files import WeightFile, open_weights, renamed
from vitreous.model.weights.formats import recognise
from vitreous.model.weights.kinds import reason
from vitreous.model.weights.native import METADATA_KEY, load_native
from vitreous.model.weights.shapes import check_keys
from vitreous.model.weights.strict import check_plausible, check_shapes, check_values, listed, shown
from vitreous.model.weights.table import Format, Hints, Shapes, expected_shapes, own, read_tensors


def load_model(
    path: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    architecture: Mapping[str, Any] | None = None,
) -> VisionTransformer:
    """A model from a file, on the CPU, in evaluation mode: our own, or timm's, torchvision's, transformers', Google's.

    Nothing is unpickled that could be code. Every tensor must find its place, and every place its tensor; the size of
    images, the number of classes and a known model's heads are read off the shapes.

    Args:
        path: A `.safetensors`, `.npz`, `.pt`, `.pth`, `.bin` or `.ckpt`; a folder with one and its `config.json`, or
            with several and their index; or `hf://organisation/name`.
        name: What the model is, as for `create_model`, where the file does not say and its shapes leave it open.
        num_classes: Other than the file's: the head is replaced by a fresh one; 0 leaves it out.
        img_size: Other than the file's: positions are resampled, as the library of the file does it.
        architecture: Keys of ModelConfig that neither file nor name tells, e.g. `{"num_heads": 4, "act": "relu"}`.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, of no known format, holds NaN, or its tensors are not the model's.
        ConfigError: What was asked does not fit the file, or the file leaves something open.
        MissingDependencyError: `hf://` without huggingface_hub.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    with open_weights(path) as file:
        if METADATA_KEY in file.metadata:
            if name is not None or architecture:
                raise ConfigError(f"{path}: says itself what it is; leave name and architecture out")
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
    """What an open file of another library is, before any tensor is read.

    Attributes:
        format_: Whose it is.
        config: Its architecture.
        names: Today's spelling of each tensor that the model needs -> the spelling in the file.
        left_out: Each other tensor, and why a Vision Transformer does without.
    """

    format_: Format
    config: ModelConfig
    names: dict[str, str]
    left_out: dict[str, str]


def identify(file: WeightFile, hints: Hints) -> Identified:
    """Recognise an open file and find every tensor's place.

    Raises:
        DamagedFileError: The file is of no known format, or its tensors are not the model's.
        ConfigError: The hints do not fit the file, or something is left open.
    """
    check_keys(hints.architecture)
    format_ = recognise(file.path, file.shapes)
    names, left_out = {}, {}
    spelt = renamed(file.shapes, format_.renames)
    twice = file.shapes.keys() - set(spelt.values())
    if twice:
        raise DamagedFileError(f"{file.path}: has {listed(twice)} under two spellings; keep one of them")
    for name, there in spelt.items():
        why = next((why for pattern, why in format_.skipped.items() if re.search(pattern, name)), None)
        why = "it holds no numbers" if 0 in file.shapes[there] else why
        if why is None:
            names[name] = there
        else:
            left_out[name] = why
    found = {name: file.shapes[there] for name, there in names.items()}
    config = _read_config(file.path, format_, found, hints)
    check_plausible(file.path, config, found)
    check_shapes(file.path, expected=expected_shapes(format_, config), found=found)
    return Identified(format_, config, names, left_out)


def _read_config(path: Path, format_: Format, found: Shapes, hints: Hints) -> ModelConfig:
    try:
        return format_.read_config(found, hints)
    except VitreousError:
        raise
    except KeyError as error:
        raise DamagedFileError(
            f"{path}: its names are {format_.name}'s, but {shown(str(error.args[0]))} is not there; it was cut short, "
            "or is one part of several; fetch it again"
        ) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        # A tensor of a known name, but of more or fewer sides than it must have, or of none.
        raise DamagedFileError(
            f"{path}: its names are {format_.name}'s, but its shapes tell no architecture ({reason(error)}); "
            "fetch it again"
        ) from error


def load_foreign(file: WeightFile, hints: Hints) -> VisionTransformer:
    """The model of an open file that another library wrote. Raises DamagedFileError and ConfigError as `load_model`."""
    found = identify(file, hints)
    theirs = {name: file.tensors[there] for name, there in found.names.items()}
    check_values(file.path, theirs)
    dtype = _common_dtype(theirs)
    ours = read_tensors(found.format_.rows(found.config), theirs)
    state = {name: own(tensor.to(dtype)) for name, tensor in ours.items()}
    return model_from_state(found.config, state).eval()


def _common_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The one that all have, or the widest of several."""
    widest, *others = {tensor.dtype for tensor in tensors.values()}
    for dtype in others:
        widest = torch.promote_types(widest, dtype)
    return widest
