"""Metadata of a model file -> whether it knows classes, and the thresholds of a multi-label model."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.errors import NotARunError
from vitreous.wording import plural


def check_has_classes(metadata: Mapping[str, Any], file: Path) -> None:
    """Raise NotARunError for a model that was pretrained without labels."""
    if "pretraining" in metadata:
        run = quote(str(file.parent))
        raise NotARunError(
            f"run={file.parent}: was pretrained without labels and knows no classes; train it on labeled images: "
            f"`vitreous train DATA --pretrained {run}`"
        )


def thresholds_in(metadata: dict[str, Any], num_classes: int) -> tuple[float, ...] | None:
    """Return the thresholds of a multi-label model. Raises ValueError if there is not one in [0, 1] per class."""
    if metadata.get("task", "single") == "single":
        return None
    thresholds = tuple(map(float, metadata["thresholds"]))
    if len(thresholds) != num_classes or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"{plural(len(thresholds), 'threshold')} for {num_classes} labels, or not all in [0, 1]")
    return thresholds
