"""Tensor names and shapes -> the format of the file that has them."""

from collections.abc import Mapping

from vitreous.errors import ConfigError, DamagedFileError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.files import canonical_names
from vitreous.model.weights.google import GOOGLE
from vitreous.model.weights.huggingface import HUGGINGFACE
from vitreous.model.weights.table import Format, refusals
from vitreous.model.weights.timm import TIMM
from vitreous.model.weights.torchvision import TORCHVISION
from vitreous.model.weights.vit_pytorch import VIT_PYTORCH
from vitreous.printable import printable_list
from vitreous.wording import plural

FORMATS: tuple[Format, ...] = (*HUGGINGFACE, *GOOGLE, TORCHVISION, *VIT_PYTORCH, *TIMM)
"""All formats, in the order in which they are tried."""

TARGETS = {
    "timm": TIMM,
    "hf": HUGGINGFACE,
    "torchvision": (TORCHVISION,),
    "npz": GOOGLE,
    "vit-pytorch": VIT_PYTORCH,
    "vitreous": (),
}
"""Export targets by name, each with its formats; the first one that can hold the model is written."""


def recognize(source: object, shapes: Mapping[str, tuple[int, ...]]) -> Format:
    """Find the format of a file by the names and shapes of its tensors.

    Raises:
        DamagedFileError: The file has no known format.
    """
    for format_ in FORMATS:
        names = canonical_names(shapes, format_.renames)
        if format_.recognizes(frozenset(names)) and format_.fits(
            {name: shapes[stored] for name, stored in names.items()}
        ):
            return format_
    known = ", ".join(dict.fromkeys(format_.name for format_ in FORMATS))
    raise DamagedFileError(
        f"{source}: has {plural(len(shapes), 'tensor')} ({printable_list(shapes, 4)}) with names of no known Vision "
        f"Transformer; use a file in one of these formats: vitreous, {known}"
    )


def format_to_write(target: str, config: ModelConfig) -> Format:
    """Choose the format of an export target, a key of `TARGETS`, that can hold a model.

    Raises:
        UnknownNameError: There is no such target.
        ConfigError: No format of the target can hold the model.
    """
    if target not in TARGETS:
        raise UnknownNameError(f"to={target}: no such format; {nearest(target, TARGETS)}")
    refused = {format_.name: refusals(format_, config) for format_ in TARGETS[target]}
    for format_ in TARGETS[target]:
        if not refused[format_.name]:
            return format_
    name, choices = min(refused.items(), key=lambda item: len(item[1]))
    raise ConfigError(f"to={target}: {name} cannot hold {', '.join(choices)}; use to=vitreous or another format")
