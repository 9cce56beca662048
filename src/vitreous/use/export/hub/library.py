"""Predictor -> a folder that transformers or timm opens with all it needs, and how the library answers from it."""

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitreous import atomic
from vitreous.errors import ConfigError, optional_module, without_way_out
from vitreous.model.weights import export_weights
from vitreous.use.export.proof import Answer, Outputs, Photos
from vitreous.use.export.whole import WholeModel
from vitreous.use.predict.predictor import Predictor

LIBRARIES = {"hf": "transformers", "timm": "timm"}
"""Format -> the library that reads it."""
_MOST_DIFFERENCE = 1e-3
"""Largest difference of a probability between the library and Python for the same pixels."""
_CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}
_BICUBIC = 3


def write_library(predictor: Predictor, folder: Path, to: str) -> None:
    """Write weights and their description for a library, and for vitreous.

    The head is divided by the temperature, so that the library's probabilities are calibrated.

    Raises:
        ConfigError: The library has no such model, or no such preprocessing.
    """
    preprocess, several = predictor.preprocess, predictor.thresholds is not None
    WholeModel(predictor)  # refuses what no format can have
    if preprocess.in_chans not in (1, 3):
        raise ConfigError(
            f"data.in_chans={preprocess.in_chans}: {LIBRARIES[to]} reads images of 1 or 3 channels; use --to onnx"
        )
    described = _processor(predictor) if to == "hf" else None
    model = copy.deepcopy(predictor.model)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.div_(predictor.temperature)
    labels = {"task": "multilabel", "thresholds": list(predictor.thresholds or ())} if several else {}
    own = {"classes": list(predictor.classes), "preprocess": preprocess.as_dict(), "temperature": 1.0}
    try:
        export_weights(model, folder, to=to, metadata={**predictor.metadata, **labels, **own})
    except ConfigError as error:
        raise ConfigError(f"{without_way_out(error)}; use --to onnx") from error
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    config["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    if described is not None:
        if "ForImageClassification" not in config["architectures"][0]:
            raise ConfigError(f"to=hf: {config['architectures'][0]} is no classifier in transformers; use --to onnx")
        config["id2label"] = {str(number): name for number, name in enumerate(predictor.classes)}
        config["label2id"] = {name: number for number, name in enumerate(predictor.classes)}
        atomic.write_json(folder / "preprocessor_config.json", described, indent=2)
    else:
        config["label_names"] = list(predictor.classes)
        config["pretrained_cfg"] |= {
            "mean": preprocess.mean,
            "std": preprocess.std,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": _CROP_MODES[preprocess.fit],
        }
    atomic.write_json(file, config, indent=2)


def _processor(predictor: Predictor) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of transformers."""
    preprocess, (height, width) = predictor.preprocess, predictor.preprocess.img_size
    is_crop = preprocess.fit == "crop"
    if preprocess.fit == "pad" or (is_crop and height != width):
        raise ConfigError(
            f"data.fit={preprocess.fit}: transformers has no preprocessing of this kind for images of {height}x{width} "
            "px; use --to timm"
        )
    size = {"height": height, "width": width}
    return {
        "image_processor_type": "BitImageProcessor" if is_crop else "ViTImageProcessor",
        "do_convert_rgb": preprocess.in_chans == 3,
        "do_resize": True,
        "size": {"shortest_edge": height} if is_crop else size,
        "resample": _BICUBIC,
        "do_center_crop": is_crop,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    }


def open_library(predictor: Predictor, folder: Path, to: str) -> Answer:
    """Open a folder with its library, and return how that answers with its own preprocessing.

    Raises:
        ConfigError: It computes other probabilities than Python from the same pixels.
    """
    compute, prepare = (_open_transformers if to == "hf" else _open_timm)(folder)
    shape = (2, predictor.preprocess.in_chans, *predictor.preprocess.img_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    finish: Callable[[Tensor], Tensor] = (
        partial(torch.softmax, dim=1) if predictor.thresholds is None else torch.sigmoid
    )

    @torch.no_grad()
    def probabilities(images: Tensor) -> NDArray[np.float32]:
        return finish(compute(images)).numpy()

    ours = predictor.probabilities(predictor.logits(pixels)).numpy()
    difference = float(np.abs(probabilities(predictor.preprocess.normalize(pixels)) - ours).max())
    if not difference <= _MOST_DIFFERENCE:  # also if it is NaN
        raise ConfigError(
            f"to={to}: {LIBRARIES[to]} computes other probabilities from the same pixels (by up to {difference:.2g}), "
            "so no file was kept; use --to onnx"
        )

    def answer(photos: Photos) -> Outputs:
        images = [Image.fromarray(photo.squeeze(2) if photo.shape[2] == 1 else photo) for photo in photos]
        return (probabilities(prepare(images)),)

    return answer


_Opened = tuple[Callable[[Tensor], Tensor], Callable[[Sequence[Image.Image]], Tensor]]
"""Images -> logits, and photos -> images."""


def _open_transformers(folder: Path) -> _Opened:
    import transformers

    was_shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    finally:
        if was_shown:
            transformers.logging.enable_progress_bar()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)

    def prepare(photos: Sequence[Image.Image]) -> Tensor:
        return processor(list(photos), return_tensors="pt")["pixel_values"]

    return lambda images: model(images).logits, prepare


def _open_timm(folder: Path) -> _Opened:
    timm = optional_module("timm", "to=timm", "run `pip install timm`")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model, lambda photos: torch.stack([transform(photo) for photo in photos])
