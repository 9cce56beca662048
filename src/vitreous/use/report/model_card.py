"""Report input -> `MODEL_CARD.md`: what the model is for, its data, its scores and their limits, as hubs read it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from vitreous import atomic
from vitreous.data.sources.source import as_text
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text
from vitreous.use.evaluate.multilabel import map_text
from vitreous.use.report.section import ReportInput
from vitreous.wording import listed, plural, shortened

_MARK = "<!-- Written by `vitreous report`, which replaces this file as long as it contains this line. -->"
_MOST_CLASSES = 50


def write_model_card(report: ReportInput) -> None:
    """Write the model card next to the model, unless its mark was removed. Raises SaveError if that fails."""
    path = report.folder.model_card
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    header = yaml.safe_dump(_header(report), sort_keys=False, allow_unicode=True)
    atomic.write_text(path, as_text(f"---\n{header}---\n{_MARK}\n\n" + "\n".join(_lines(report)) + "\n"))


def _header(report: ReportInput) -> Mapping[str, Any]:
    """Return the metadata that hubs read; the license is unknown, because only the owner of the data can give one."""
    split = scored_split(report.metadata["metrics"])
    name, results = report.folder.path.resolve().name, []
    if split is not None:
        found = report.metadata["metrics"][split]
        kinds = {"accuracy": "accuracy", "f1": "macro_f1", "mean_average_precision": "mean_average_precision"}
        metrics = [{"type": kind, "value": float(found[key])} for kind, key in kinds.items() if key in found]
        data = {"name": str(report.metadata["data"]), "type": "imagefolder", "split": split}
        results = [{"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}]
    base = report.config.train.pretrained or ""
    return {
        "license": "unknown",
        "library_name": "vitreous",
        "pipeline_tag": "image-classification",
        "tags": ["vision-transformer"],
        **({"base_model": base.removeprefix("hf://")} if base.startswith("hf://") else {}),
        **({"model-index": [{"name": name, "results": results}]} if results else {}),
    }


def _lines(report: ReportInput) -> Iterator[str]:
    metadata, data = report.metadata, report.last("data")
    classes = [_text(name) for name in metadata["classes"]]
    split = scored_split(metadata["metrics"])
    found = metadata["metrics"][split] if split else {}
    yield f"# {_text(report.folder.path.resolve().name)}\n"
    yield f"A Vision Transformer that classifies images into {plural(len(classes), 'class', 'classes')}: "
    yield f"{listed(classes, _MOST_CLASSES)}.\n"
    yield "## Intended use\n"
    yield "Images of the same kind as the training images: same objects, camera and light. On others, its probabilities"
    yield "mean little. It gives one of its classes to every image, also to one that shows none of them.\n"
    yield '```python\nimport vitreous as vt\n\nvt.load_run("model.safetensors").predict("photo.jpg")\n```\n'
    yield "## Data\n"
    counts = ", ".join(f"{data[f'num_{name}']:,} {name}" for name in ("train", "val", "test") if f"num_{name}" in data)
    yield f"{_text(metadata['data'])}: {counts or 'unknown'} images.\n"
    yield "## Results\n"
    texts = [map_text(found)] if "mean_average_precision" in found else []
    texts += [f"{split} accuracy {accuracy_text(found)}", baseline_text(found)] if found else ["accuracy unknown"]
    yield from (f"- {_text(text, 500)}" for text in texts if text)
    if metadata.get("chosen_on_val", True) and split == "val":
        yield "- these images have chosen the weights, so this is slightly optimistic"
    yield "\n## Limits\n"
    limits = [never_predicted_text(found), *map(str, data.get("findings", ())), *report.last("plan").get("notes", ())]
    yield from (f"- {_text(text, 500)}" for text in limits if text)
    yield "- `report.html` shows its mistakes; the interval is for other images of the same kind, not for other kinds"


def _text(text: object, most: int = 60) -> str:
    """Return a text on one line, escaped so that Markdown and HTML show it as it is."""
    line = shortened(str(text), most).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
