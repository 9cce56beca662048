"""Weights in any known format -> the same weights in the format of another library."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vitreous.errors import ConfigError, OpenQuestionError, UnknownNameError, nearest
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import TARGETS, export_weights
from vitreous.model.weights.open import open_model
from vitreous.model.weights.table import TRAINING_ONLY, Hints

_ENDINGS = {"hf": "", "npz": ".npz"}
_BATCH = 2
_WITHOUT_EFFECT = TRAINING_ONLY | {
    *("init", "position_resize", "layer_scale", "class_token", "dynamic_img_size", "head_dim", "mlp_ratio")
}
"""Fields of ModelConfig that shapes determine, or that do not change the outputs for images of the model's own size."""


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        path: The weights file that was written.
        to: Its format.
        parameters: Number of parameters in it.
        difference: Largest absolute difference between the outputs of the old and the new weights on a random batch;
            None if it was not checked, or if the new file opens as a model for images of another size.
        scale: Largest absolute output, for comparison with `difference`; None if it was not checked.
        checked_by: Library that loaded the new file for the check; None if it was not checked.
        notes: What was assumed about the source, one sentence each.
        unsaid: Field of ModelConfig -> its value, for each one that the new file does not say and readers would ask for
            or assume differently; empty if it was not checked.
    """

    path: Path
    to: str
    parameters: int
    difference: float | None = None
    scale: float | None = None
    checked_by: str | None = None
    notes: tuple[str, ...] = ()
    unsaid: Mapping[str, Any] = field(default_factory=dict)


def convert(
    source: str,
    *,
    to: str,
    out: Path | None = None,
    name: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    weights: str = "auto",
    check: bool = False,
) -> Conversion:
    """Read weights of any known format and write them in another.

    Args:
        source: File, folder or `hf://` name of the weights, as for `vitreous.load_model`.
        to: Target format, one of `model.weights.TARGETS`.
        out: File or folder to write; None chooses a name in the working directory, from source and format.
        name: Name of the model, e.g. `vit_base_patch16_224`, if the file does not contain it.
        architecture: Keys of ModelConfig that neither the file nor the name determines.
        weights: Which weights of a checkpoint to convert, as for `vitreous.load_model`.
        check: Open the new file as a stranger would, with nothing but what it says, and compare outputs. If the format
            is that of transformers and transformers is installed, it opens the file.

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
    opened = open_model(source, Hints(name, architecture=architecture or {}, weights=weights))
    model = opened.model
    written = export_weights(model, path, to=to)
    found = Conversion(written, to, sum(parameter.numel() for parameter in model.parameters()), notes=(*opened.notes,))
    return _checked(found, model.float()) if check else found


def _checked(found: Conversion, model: VisionTransformer) -> Conversion:
    """Compare the outputs of the new file with those of the model, on random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_BATCH, model.config.in_chans, *model.config.img_size, generator=generator)
    unsaid: dict[str, Any] = {}
    with torch.no_grad():
        expected = model(images)
        outputs, checked_by = _outputs_in_transformers(found, model, images)
        if outputs is None:
            while True:
                try:
                    again = open_model(found.path, Hints(architecture=unsaid)).model.float()
                except OpenQuestionError as question:
                    if question.key in unsaid:
                        raise
                    unsaid[question.key] = getattr(model.config, question.key)
                else:
                    break
            unsaid |= _different(again, model)
            outputs = again(images) if again.config.img_size == model.config.img_size else None
    difference = None if outputs is None else float((outputs - expected).abs().max())
    return replace(
        found,
        difference=difference,
        scale=float(expected.abs().max()),
        checked_by=checked_by,
        unsaid=unsaid,
    )


def _different(opened: VisionTransformer, model: VisionTransformer) -> dict[str, Any]:
    """Return the fields of the model that its file opens with another value, of those that change the outputs."""
    theirs, ours = opened.config.as_dict(), model.config.as_dict()
    return {
        key: getattr(model.config, key)
        for key, value in ours.items()
        if theirs[key] != value and key not in _WITHOUT_EFFECT
    }


def _outputs_in_transformers(
    found: Conversion, model: VisionTransformer, images: torch.Tensor
) -> tuple[torch.Tensor | None, str]:
    """Return the outputs of the new file, and who computed them; no outputs if transformers cannot open it."""
    folder = found.path.parent
    if found.to != "hf" or not model.config.num_classes or not importlib.util.find_spec("transformers"):
        return None, "vitreous"
    import transformers

    description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    answer = getattr(transformers, description["architectures"][0]).from_pretrained(folder).eval()(images)
    outputs = next((answer[key] for key in ("logits", "image_embeds") if key in answer), None)
    return outputs, "vitreous" if outputs is None else f"transformers {transformers.__version__}"
