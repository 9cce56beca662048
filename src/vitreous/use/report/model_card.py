"""Report input, verdict -> `MODEL_CARD.md`: what the model is for, its scores and their limits, as hubs read it."""

import re
from typing import Any

import yaml

from vitreous import atomic
from vitreous.data.sources.source import as_text
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.report.section import ReportInput, Section
from vitreous.wording import listed, plural, shortened

_MARK = "<!-- `vitreous report` replaces this file as long as it contains this line. -->"
_TEXT = """---
{header}---
{mark}

# {name}

A Vision Transformer that classifies images into {classes}.

## Intended use

Images of the same kind as the training images. It gives one of its classes to every image, also to other images.

## Results

{results}

## Data and limits

{data}
- The interval is for other images of the same kind. `report.html` shows the mistakes and how to repeat the run.
"""


def write_model_card(report: ReportInput, verdict: Section) -> None:
    """Write the model card next to the model, unless its mark was removed. Raises SaveError if that fails."""
    path, metadata, data = report.folder.model_card, report.metadata, report.last("data")
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    name, split = report.folder.path.resolve().name, scored_split(metadata["metrics"])
    # Only the owner of the data can choose a license.
    header: dict[str, Any] = {"license": "unknown", "library_name": "vitreous", "pipeline_tag": "image-classification"}
    if split is not None:
        found, dataset = metadata["metrics"][split], {"name": metadata["data"], "type": "imagefolder", "split": split}
        kinds = {"accuracy": "accuracy", "f1": "macro_f1", "mean_average_precision": "mean_average_precision"}
        metrics = [{"type": kind, "value": float(found[key])} for kind, key in kinds.items() if key in found]
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        header |= {"model-index": [{"name": name, "results": [result]}]}
    classes = [_text(each) for each in metadata["classes"]]
    counts = [f"{data[f'num_{each}']:,} {each}" for each in ("train", "val", "test") if f"num_{each}" in data]
    about = [f"{metadata['data']}: {listed(counts) or 'unknown'} images", *map(str, data.get("findings", ()))]
    text = _TEXT.format(
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True),
        mark=_MARK,
        name=_text(name),
        classes=f"{plural(len(classes), 'class', 'classes')}: {listed(classes, 50)}",
        results="\n".join(f"- {_text(sentence, 500)}" for sentence in verdict.numbers["sentences"]),
        data="\n".join(f"- {_text(each, 500)}" for each in about),
    )
    atomic.write_text(path, as_text(text))


def _text(text: str, most: int = 60) -> str:
    """Return a text on one line, escaped so that Markdown and HTML show it as it is."""
    line = shortened(text, most).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
