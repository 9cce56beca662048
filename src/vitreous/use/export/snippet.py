"""Exported file -> a short program in Python that classifies a photo with it and does not need vitreous."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROGRAM = """\
import json, sys
import numpy as np, {runtime}
from PIL import Image, ImageOps

{opened}
classes = json.loads(about["classes"])
{read}
{answered}
for number in {chosen}:
    print(f"{{classes[number]}} {{probabilities[number]:.1%}}")
"""
_READ = """\
photo = Image.open(sys.argv[1])
photo.draft(None, ({side}, {side}))  # large JPEG files are decoded at a reduced size, as in training
photo = ImageOps.exif_transpose(photo).convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("{mode}")
photos = np.array(photo).reshape(1, photo.height, photo.width, {channels})"""
_READ_ARRAY = "photos = np.load(sys.argv[1])[None]  # uint8, [height, width, {channels}]"
_RUNTIMES = {
    "onnx": (
        "onnxruntime",
        "session = onnxruntime.InferenceSession({path})\nabout = session.get_modelmeta().custom_metadata_map",
        'probabilities = session.run(None, {"photos": photos})[0][0]',
    ),
    "openvino": (
        "openvino",
        'model = openvino.Core().read_model({path} + "/openvino_model.xml")\n'
        'about = model.get_rt_info(["vitreous"]).value\n'
        'run = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": json.loads(about["precision"])}})',
        "probabilities = run(photos)[0][0]",
    ),
    "torch": (
        "torch",
        'about = {{"classes": ""}}\nprogram = torch.export.load({path}, extra_files=about).module()',
        "probabilities = program(torch.from_numpy(photos)).detach().numpy()[0]",
    ),
}
_LIBRARY_PROGRAM = """\
import sys, {library}, torch
from PIL import Image, ImageOps

{opened}
photo = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("{mode}")
with torch.no_grad():
    probabilities = {answered}.{finished}
for number in {chosen}.tolist():
    print(f"{{classes[number]}} {{probabilities[number]:.1%}}")
"""
_LIBRARIES = {
    "hf": (
        "transformers",
        "model = transformers.AutoModelForImageClassification.from_pretrained({source})\n"
        "processor = transformers.AutoImageProcessor.from_pretrained({source})\n"
        "classes = model.config.id2label",
        'model(**processor(photo, return_tensors="pt")).logits[0]',
    ),
    "timm": (
        "timm",
        "model = timm.create_model({source}, pretrained=True).eval()\n"
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
        'classes = model.pretrained_cfg["label_names"]',
        "model(transform(photo)[None])[0]",
    ),
}
_MOST_PROBABLE = "probabilities.argsort()[::-1][:5]"
_REACHED = 'np.flatnonzero(probabilities >= json.loads(about["thresholds"]))'


def snippet(path: Path, to: str, described: dict[str, Any]) -> str:
    """Return the program for a file of a format, by what the file says about itself; empty for a page."""
    if to in _LIBRARIES:
        return library_snippet(f"local-dir:{path}" if to == "timm" else str(path), to, described)
    if to not in _RUNTIMES:
        return ""
    runtime, opened, answered = _RUNTIMES[to]
    channels, side = described["preprocess"]["in_chans"], 2 * max(described["preprocess"]["img_size"])
    read = _READ if channels in (1, 3) else _READ_ARRAY
    chosen = _MOST_PROBABLE if described["thresholds"] is None else _REACHED
    return _PROGRAM.format(
        runtime=runtime,
        opened=opened.format(path=json.dumps(str(path))),
        read=read.format(side=side, mode="L" if channels == 1 else "RGB", channels=channels),
        answered=answered,
        chosen=chosen,
    )


def library_snippet(source: str, to: str, described: Mapping[str, Any]) -> str:
    """Return the program for a model that a library opens by this name."""
    library, opened, answered = _LIBRARIES[to]
    reached = described["thresholds"]
    return _LIBRARY_PROGRAM.format(
        library=library,
        opened=opened.format(source=json.dumps(source)),
        mode="L" if described["preprocess"]["in_chans"] == 1 else "RGB",
        answered=answered,
        finished="softmax(dim=0)" if reached is None else "sigmoid()",
        chosen="probabilities.argsort(descending=True)[:5]"
        if reached is None
        else f"(probabilities >= torch.tensor({reached})).nonzero()[:, 0]",
    )
