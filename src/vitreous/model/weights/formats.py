"""Export target, ModelConfig -> the format to write; all formats, in the order in which files are compared."""

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.google import GOOGLE
from vitreous.model.weights.huggingface import HUGGINGFACE
from vitreous.model.weights.huggingface.open_clip import OPEN_CLIP
from vitreous.model.weights.table import Format, refusals
from vitreous.model.weights.timm import META, TIMM
from vitreous.model.weights.torchvision import TORCHVISION
from vitreous.model.weights.vit_pytorch import VIT_PYTORCH

FORMATS: tuple[Format, ...] = (*HUGGINGFACE, *GOOGLE, TORCHVISION, OPEN_CLIP, *VIT_PYTORCH, *META, *TIMM)
"""All formats, in the order in which they are tried."""

TARGETS = {
    "timm": TIMM,
    "hf": HUGGINGFACE,
    "torchvision": (TORCHVISION,),
    "npz": GOOGLE,
    "open-clip": (OPEN_CLIP,),
    "vit-pytorch": VIT_PYTORCH,
    "meta": META,
    "vitreous": (),
}
"""Export targets by name, each with its formats; the first one that can hold the model is written."""


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
