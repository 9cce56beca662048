"""Model, image -> scores that took long to compute, from a file of the user's cache folder."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.paths import cache_folder_of
from vitreous.tensor_file import open_tensor_file, write_tensor_file

MOST_FILES = 4096
"""Files to keep, the newest ones; with 4x4 super-tokens, they take 1 GB."""

_FORMAT = 1
_SUFFIX = ".safetensors"

Scores = Float64[Tensor, " coalitions"]


def stored_scores(key: str, count: int, compute: Callable[[], Scores]) -> Scores:
    """Return the scores that are stored under a key. If there are none, compute and store them.

    A file that is damaged or has other contents is replaced. If the folder cannot be written, nothing is stored.

    Args:
        key: From `hash_of`.
        count: Number of scores.
        compute: Returns the scores, which are float32 numbers.
    """
    path = cache_folder_of("shapley") / f"{key}{_SUFFIX}"
    found = _read(path, count)
    if found is None:
        found = compute()
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_tensor_file(path, {"scores": found.float()}, {})
            _remove_oldest(path.parent)
    return found


def fingerprint(model: VisionTransformer) -> str:
    """Return a hash of what determines the logits of a model: architecture, weights, patch size, merged tokens."""
    merged = getattr(model.encoder, "num_merged", None)
    return hash_of([model.config.as_dict(), model.tokenizer.patch_size, merged], model.state_dict())


def hash_of(settings: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of values that JSON can store, and of tensors with their names."""
    digest = hashlib.blake2b(json.dumps([_FORMAT, settings]).encode(), digest_size=16)
    for name, tensor in tensors.items():
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, count: int) -> Scores | None:
    """Return the scores of a file; None if there is no such file, or if it holds anything else."""
    try:
        with open_tensor_file(path, way_out="delete it") as file:
            if file.shapes() != {"scores": (count,)}:
                return None
            scores = file.read("scores")
    except DamagedFileError:
        return None
    return scores.double() if scores.dtype == torch.float32 and bool(scores.isfinite().all()) else None


def _remove_oldest(folder: Path) -> None:
    paths = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in paths[:-MOST_FILES]:
        path.unlink(missing_ok=True)
