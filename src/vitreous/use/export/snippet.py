"""Exported file -> short programs that classify a photo with it and do not need vitreous, by language."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.wording import visible

_FOLDER = Path(__file__).with_name("programs")
_PYTHON, _LIBRARY = "classify.py.txt", "library.py.txt"
_FILES = {"javascript": "classify.mjs", "csharp": "classify.cs", "cpp": "classify.cpp"}
LANGUAGES = ("python", *_FILES)
UNLIKE = "unlike the training photos, so these probabilities may mean little"


def check_language(language: str, to: str) -> None:
    """Raise UnknownNameError for a language that is not known, ConfigError for one without programs for a format."""
    if language not in LANGUAGES:
        raise UnknownNameError(f"snippet={language}: no such language; {nearest(language, LANGUAGES)}")
    if language != "python" and to != "onnx":
        raise ConfigError(f"snippet={language}: is for --to onnx, not {to}; leave it out, or use --to onnx")


def snippets(path: Path, to: str, described: Mapping[str, Any]) -> dict[str, str]:
    """Return programs for a file by what it says about itself; only Python if a photo is not gray or in color."""
    if to in ("hf", "timm"):
        return {"python": library_snippet(f"local-dir:{path}" if to == "timm" else str(path), to, described)}
    found = {"python": _filled(_PYTHON, str(path), to, described)} if to != "html" else {}
    if to == "onnx" and described["preprocess"]["in_chans"] in (1, 3):
        found |= {language: _filled(name, str(path), to, described) for language, name in _FILES.items()}
    return found


def library_snippet(source: str, to: str, described: Mapping[str, Any]) -> str:
    """Return the program for a model that a library opens by this name."""
    return _filled(_LIBRARY, source, to, described)


def _filled(name: str, path: str, to: str, described: Mapping[str, Any]) -> str:
    """Return a program from a file: its lines that fit the model, with values in place of words in capitals."""
    thresholds, unfamiliar = described["thresholds"], None if to == "openvino" else described["unfamiliar"]
    channels = described["preprocess"]["in_chans"]
    kinds = {to, "one" if thresholds is None else "labels", *(["unfamiliar"] if unfamiliar else [])}
    kinds |= {"photo", "gray" if channels == 1 else "color"} if channels in (1, 3) else {"array"}
    values = {"PATH": path, "CLASSES": described["classes"], "THRESHOLDS": thresholds, "CHANNELS": channels}
    values |= {"FLAGGED": unfamiliar and unfamiliar["flagged_from"], "UNLIKE": UNLIKE}
    values |= {"OUTPUTS": ["probabilities", "unfamiliar"] if unfamiliar else ["probabilities"]}
    values |= {"SIDE": 2 * max(described["preprocess"]["img_size"])}
    text = (_FOLDER / name).read_text("utf-8")
    kept = re.sub(r"(?m)^\?(\w+) (.*\n)", lambda line: line[2] if line[1] in kinds else "", text)

    def value(word: re.Match[str]) -> str:
        given = json.dumps(values[word[0]], ensure_ascii=False)
        if name in (_PYTHON, _LIBRARY):  # the escapes of JSON would break an emoji in two
            return visible(given)
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in given)
        return f"{{{text[1:-1]}}}" if name.endswith(".cpp") and text.startswith("[") else text

    return re.sub(rf"\b({'|'.join(values)})\b", value, kept)
