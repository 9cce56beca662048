"""Weights of one library -> the same weights as another names them."""

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
    """What was written, and how far it is from what was read.

    Attributes:
        path: The file of weights.
        to: The format.
        parameters: Numbers in it.
        difference: Largest absolute difference of an output on a random batch; None where it was not checked.
        scale: Largest absolute output, to compare with.
        checked_by: Whose code read the new file for that.
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
        source: As `vitreous.load_model` takes it.
        to: One of `model.weights.TARGETS`.
        out: What to write; None makes a name beside nothing that exists, in the working directory.
        name: What the model is, where the file does not say.
        architecture: Keys of ModelConfig that neither file nor name tells.
        check: Open what was written, with transformers itself where it is installed and wrote the format, and compare.

    Raises:
        UnknownNameError: No such format.
        ConfigError: The format has no place for a part of the model, or `out` is there already.
        RunError: The source cannot be read, or the file not written.
    """
    if to not in TARGETS:
        raise UnknownNameError(f"to={to}: no such format; {nearest(to, TARGETS)}")
    path = out or Path(f"{Path(source.removeprefix('hf://')).stem or 'model'}-{to}{_ENDINGS.get(to, '.safetensors')}")
    if path.exists():
        raise ConfigError(f"out={path}: is there already; choose another name with --out")
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
    """Outputs of the new file, and whose code gave them."""
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
    # What a format leaves open (heads, activation …) is told again, as whoever opens the file has to.
    again = load_model(written, architecture=None if description.is_file() else model.config.as_dict()).float()
    return again(images), "vitreous"
