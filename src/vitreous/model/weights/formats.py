"""Names of tensors -> the format that they are of."""

from collections.abc import Mapping

from vitreous.errors import ConfigError, DamagedFileError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.files import renamed
from vitreous.model.weights.google import GOOGLE
from vitreous.model.weights.huggingface import HUGGINGFACE
from vitreous.model.weights.strict import listed
from vitreous.model.weights.table import Format, refusals
from vitreous.model.weights.timm import TIMM
from vitreous.model.weights.torchvision import TORCHVISION
from vitreous.model.weights.vit_pytorch import VIT_PYTORCH

FORMATS: tuple[Format, ...] = (*HUGGINGFACE, *GOOGLE, TORCHVISION, *VIT_PYTORCH, *TIMM)
"""Asked in this order."""

TARGETS = {
    "timm": TIMM,
    "hf": HUGGINGFACE,
    "torchvision": (TORCHVISION,),
    "npz": GOOGLE,
    "vit-pytorch": VIT_PYTORCH,
    "vitreous": (),
}
"""What weights can be written as: the word for it, and formats, of which the first that fits is taken."""


def recognise(source: object, shapes: Mapping[str, tuple[int, ...]]) -> Format:
    """The format of a file's tensors.

    Raises:
        DamagedFileError: None that is known here.
    """
    for format_ in FORMATS:
        spelt = renamed(shapes, format_.renames)
        if format_.recognises(frozenset(spelt)) and format_.fits(
            {name: shapes[there] for name, there in spelt.items()}
        ):
            return format_
    known = ", ".join(dict.fromkeys(format_.name for format_ in FORMATS))
    raise DamagedFileError(
        f"{source}: its {len(shapes)} tensors ({listed(shapes, 4)}) are named as no known Vision Transformer's; "
        f"known are vitreous, {known}"
    )


def format_to_write(target: str, config: ModelConfig) -> Format:
    """The format to write a model in.

    Raises:
        UnknownNameError: No such target.
        ConfigError: The model has parts that the target has no place for.
    """
    if target not in TARGETS:
        raise UnknownNameError(f"to={target}: no such format; {nearest(target, TARGETS)}")
    refused = {format_.name: refusals(format_, config) for format_ in TARGETS[target]}
    for format_ in TARGETS[target]:
        if not refused[format_.name]:
            return format_
    name, why = min(refused.items(), key=lambda item: len(item[1]))
    raise ConfigError(f"to={target}: {name} has no place for {', '.join(why)}; use vitreous, or another format")
