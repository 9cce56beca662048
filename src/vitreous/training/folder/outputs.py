"""Logits and labels of the held-out images <-> `outputs.safetensors`, from which the report and `evaluate` are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.tensor_file import open_tensor_file, parsing, write_tensor_file
from vitreous.tensors import Logits, Targets

MOST_VALUES = 20_000_000
"""Logits of one split that are stored: 80 MB, e.g. 1,000 classes and 20,000 images."""
_WAY_OUT = "delete it; the report then has fewer figures"


@dataclass(frozen=True, eq=False)
class SplitOutputs:
    """What a model gives for the images of one split.

    Logits are not divided by the temperature, float32, `[n, classes]`. Labels are the true classes, `[n]`, or all
    labels of each image, `[n, classes]`. `indices` are the numbers of the images in the source, `[n]`.
    """

    logits: Logits
    labels: Targets
    indices: NDArray[np.int64]


def write_outputs(path: Path, outputs: Mapping[str, SplitOutputs]) -> None:
    """Write the outputs of each split, except those with more than `MOST_VALUES` logits; no file if none are left.

    Raises:
        SaveError: The file could not be written.
    """
    kept = {split: found for split, found in outputs.items() if found.logits.numel() <= MOST_VALUES}
    tensors: dict[str, torch.Tensor] = {}
    for split, found in kept.items():
        labels = found.labels.to(torch.uint8) if found.labels.is_floating_point() else found.labels
        tensors[f"{split}.logits"] = found.logits.float().contiguous()
        tensors[f"{split}.labels"] = labels.contiguous()
        tensors[f"{split}.indices"] = torch.from_numpy(np.ascontiguousarray(found.indices, dtype=np.int64))
    path.unlink(missing_ok=True)
    if tensors:
        write_tensor_file(path, tensors, {})


def read_outputs(path: Path) -> dict[str, SplitOutputs]:
    """Read the outputs by split: `val`, `test`, or neither; runs of older versions have no such file.

    Raises:
        DamagedFileError: The file was altered.
    """
    if not path.is_file():
        return {}
    with open_tensor_file(path, way_out=_WAY_OUT) as file, parsing(path, _WAY_OUT):
        tensors = file.read_all()
        splits = [name.removesuffix(".logits") for name in tensors if name.endswith(".logits")]
        return {split: _of_split(tensors, split) for split in splits}


def _of_split(tensors: Mapping[str, torch.Tensor], split: str) -> SplitOutputs:
    """Return the outputs of a split. Raises ValueError if they do not fit each other."""
    logits, labels, indices = (tensors[f"{split}.{name}"] for name in ("logits", "labels", "indices"))
    if labels.ndim == 2:
        labels = labels.float()
    fits = labels.shape == (logits.shape if labels.ndim == 2 else logits.shape[:1])
    if logits.ndim != 2 or not fits or indices.shape != logits.shape[:1]:
        raise ValueError(f"{split}: logits, labels and indices do not have the same number of rows")
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{split}: a logit is not finite")
    if labels.ndim == 1 and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(f"{split}: a label is not a class")
    return SplitOutputs(logits, labels, indices.numpy())
