"""Weights in any known format -> the same weights in the format of another library."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import TARGETS, export_weights, is_native, load_model

_ENDINGS = {"hf": "", "npz": ".npz"}
_BATCH = 2


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        path: The weights file that was written.
        to: Its format.
        parameters: Number of parameters in it.
        difference: Largest absolute difference between the outputs of the old and the new weights on a random batch;
            None if it was not checked.
        scale: Largest absolute output, for comparison with `difference`; None if it was not checked.
        checked_by: Library that loaded the new file for the check; None if it was not checked.
    """

    path: Path
    to: str
    parameters: int
    difference: float | None = None
    scale: float | None = None
    checked_by: str | None = None


def convert(
    source: str,
    *,
    to: str,
    out: Path | None = None,
    name: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    check: bool = False,
) -> Conversion:
    """Read weights of any known format and write them in another.

    Args:
        source: File, folder or `hf://` name of the weights, as for `vitreous.load_model`.
        to: Target format, one of `model.weights.TARGETS`.
        out: File or folder to write; None chooses a name in the working directory, from source and format.
        name: Name of the model, e.g. `vit_base_patch16_224`, if the file does not contain it.
        architecture: Keys of ModelConfig that neither the file nor the name determines.
        check: Load the new file again and compare outputs. If the format is that of transformers and transformers is
            installed, it loads the file.

    Raises:
        UnknownNameError: There is no such format.
        ConfigError: The format cannot represent a part of the model, or `out` already exists.
        RunError: The source cannot be read, or the file cannot be written.
    """
    if to not in TARGETS:
        raise UnknownNameError(f"to={to}: no such format; {nearest(to, TARGETS)}")
    path = out or Path(f"{Path(source.removeprefix('hf://')).stem or 'model'}-{to}{_ENDINGS.get(to, '.safetensors')}")
    if path.exists():
        raise ConfigError(f"out={path}: already exists; choose another name with --out")
    model = load_model(source, name=name, architecture=architecture)
    written = export_weights(model, path, to=to)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if not check:
        return Conversion(written, to, parameters)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_BATCH, model.config.in_chans, *model.config.img_size, generator=generator)
    model = model.float()
    with torch.no_grad():
        expected = model(images)
        outputs, checked_by = _read_back(written, model, images)
    difference = float((outputs - expected).abs().max())
    return Conversion(written, to, parameters, difference, float(expected.abs().max()), checked_by)


def _read_back(written: Path, model: VisionTransformer, images: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Load the new file; return its outputs and the library that computed them."""
    description = written.parent / "config.json"
    if model.config.num_classes and description.is_file() and importlib.util.find_spec("transformers"):
        import transformers

        kind = getattr(transformers, json.loads(description.read_text(encoding="utf-8"))["architectures"][0])
        found = kind.from_pretrained(written.parent).eval()(images)
        outputs = next((found[key] for key in ("logits", "image_embeds") if key in found), None)
        if outputs is not None:
            return outputs, f"transformers {transformers.__version__}"
    if is_native(written):
        return load_model(written).float()(images), "vitreous"
    # Some formats do not store e.g. the number of heads, so the architecture is passed again.
    again = load_model(written, architecture=None if description.is_file() else model.config.as_dict()).float()
    return again(images), "vitreous"
