"""Exported file -> short programs that classify a photo with it and do not need vitreous, by language."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.printable import visible

_FOLDER = Path(__file__).with_name("programs")
_FILES = {"javascript": "classify.mjs", "csharp": "classify.cs", "cpp": "classify.cpp"}
LANGUAGES = ("python", *_FILES)
UNLIKE = "unlike the training photos, so these probabilities may mean little"
_PROGRAM = """\
import json, sys
import numpy as np, {runtime}
from PIL import Image, ImageOps

{opened}
classes = json.loads(about["classes"])
{read}
{answered}
probabilities = outputs[0][0]
for number in {chosen}:
    print(f"{{classes[number]}} {{probabilities[number]:.1%}}"){flagged}
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
        'outputs = session.run(None, {"photos": photos})',
    ),
    "openvino": (
        "openvino",
        'model = openvino.Core().read_model({path} + "/openvino_model.xml")\n'
        'about = model.get_rt_info(["vitreous"]).value\n'
        'run = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": json.loads(about["precision"])}})',
        "outputs = run(photos)",
    ),
    "torch": (
        "torch",
        'about = {{"classes": "", "thresholds": ""}}\nprogram = torch.export.load({path}, extra_files=about).module()',
        "outputs = [output.detach().numpy() for output in program(torch.from_numpy(photos))]",
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
_FLAGGED = """
if outputs[1][0] >= {flagged_from}:
    print("{unlike}")"""
_MOST_PROBABLE = "probabilities.argsort()[::-1][:5]"
_REACHED = 'np.flatnonzero(probabilities >= json.loads(about["thresholds"]))'


def check_language(language: str, to: str) -> None:
    """Raise UnknownNameError for a language that is not known, ConfigError for one without programs for a format."""
    if language not in LANGUAGES:
        raise UnknownNameError(f"snippet={language}: no such language; {nearest(language, LANGUAGES)}")
    if language != "python" and to != "onnx":
        raise ConfigError(f"snippet={language}: is for --to onnx, not {to}; leave it out, or use --to onnx")


def snippets(path: Path, to: str, described: Mapping[str, Any]) -> dict[str, str]:
    """Return programs for a file by what it says about itself; only Python if a photo is not gray or in color."""
    if to in _LIBRARIES:
        return {"python": library_snippet(f"local-dir:{path}" if to == "timm" else str(path), to, described)}
    found = {"python": _in_python(path, to, described)} if to in _RUNTIMES else {}
    if to == "onnx" and described["preprocess"]["in_chans"] in (1, 3):
        found |= {language: _filled(name, path, described) for language, name in _FILES.items()}
    return found


def _filled(name: str, path: Path, described: Mapping[str, Any]) -> str:
    """Return a program from a file: its lines that fit the model, with values in place of words in capitals."""
    thresholds, unfamiliar = described["thresholds"], described["unfamiliar"]
    channels = described["preprocess"]["in_chans"]
    kinds = {"gray" if channels == 1 else "color", "one" if thresholds is None else "labels"}
    kinds |= {"unfamiliar"} if unfamiliar else set()
    values = {"PATH": str(path), "CLASSES": described["classes"], "THRESHOLDS": thresholds, "CHANNELS": channels}
    values |= {"FLAGGED": unfamiliar and unfamiliar["flagged_from"], "UNLIKE": UNLIKE}
    values["OUTPUTS"] = ["probabilities", "unfamiliar"] if unfamiliar else ["probabilities"]
    text = (_FOLDER / name).read_text("utf-8")
    kept = re.sub(r"(?m)^\?(\w+) (.*\n)", lambda line: line[2] if line[1] in kinds else "", text)

    def value(word: re.Match[str]) -> str:
        given = json.dumps(values[word[0]], ensure_ascii=False)
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in given)
        return f"{{{text[1:-1]}}}" if name.endswith(".cpp") and text.startswith("[") else text

    return re.sub(rf"\b({'|'.join(values)})\b", value, kept)


def _in_python(path: Path, to: str, described: Mapping[str, Any]) -> str:
    runtime, opened, answered = _RUNTIMES[to]
    channels, side = described["preprocess"]["in_chans"], 2 * max(described["preprocess"]["img_size"])
    known = described["unfamiliar"]
    read = _READ if channels in (1, 3) else _READ_ARRAY
    chosen = _MOST_PROBABLE if described["thresholds"] is None else _REACHED
    return _PROGRAM.format(
        runtime=runtime,
        opened=opened.format(path=_literal(str(path))),
        read=read.format(side=side, mode="L" if channels == 1 else "RGB", channels=channels),
        answered=answered,
        chosen=chosen,
        flagged=_FLAGGED.format(**known, unlike=UNLIKE) if known and to != "openvino" else "",
    )


def _literal(text: str) -> str:
    """Return a text as Python writes it, in double quotes; the escapes of JSON would break an emoji in two."""
    return visible(json.dumps(text, ensure_ascii=False))


def library_snippet(source: str, to: str, described: Mapping[str, Any]) -> str:
    """Return the program for a model that a library opens by this name."""
    library, opened, answered = _LIBRARIES[to]
    reached = described["thresholds"]
    return _LIBRARY_PROGRAM.format(
        library=library,
        opened=opened.format(source=_literal(source)),
        mode="L" if described["preprocess"]["in_chans"] == 1 else "RGB",
        answered=answered,
        finished="softmax(dim=0)" if reached is None else "sigmoid()",
        chosen="probabilities.argsort(descending=True)[:5]"
        if reached is None
        else f"(probabilities >= torch.tensor({reached})).nonzero()[:, 0]",
    )
