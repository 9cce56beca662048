"""Tensors of a file -> nothing, or one error that lists every tensor that is missing, misshapen or not finite."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.cost.count import count_parameters
from vitreous.model.weights.table import Shapes
from vitreous.wording import printable_list

COPY_AGAIN = "copy the file again, or retrain the model"
_MAX_CLAIM = 10
"""An architecture may have this many times more parameters than its file has values; more is a forged description."""
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_values(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise DamagedFileError for tensors that are not finite floating-point numbers."""
    faulty = [name for name, tensor in state.items() if tensor.dtype not in _DTYPES or not tensor.isfinite().all()]
    if faulty:
        raise DamagedFileError(
            f"{path}: these weights are not finite floating-point numbers: {printable_list(faulty)}; {COPY_AGAIN}"
        )


def check_plausible(path: Path, config: ModelConfig, found: Shapes) -> None:
    """Raise DamagedFileError if a description claims a far larger model than the file holds.

    The check comes before the model is built, so that a forged description costs neither time nor memory.
    """
    claimed, stored = count_parameters(config), sum(map(math.prod, found.values()))
    if claimed > _MAX_CLAIM * stored:
        raise DamagedFileError(
            f"{path}: its architecture has {claimed:,} parameters, but its tensors have {stored:,} values; {COPY_AGAIN}"
        )


def check_shapes(path: Path, *, expected: Shapes, found: Shapes, way_out: str | None = None) -> None:
    """Raise DamagedFileError unless the file has exactly the tensors of the model, in the same shapes.

    `way_out` ends the message; None names the likely cause instead.
    """
    wrong = [
        f"{name} is {_shape(found[name])}, must be {_shape(expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    faults = {"missing": missing, "unexpected": extra, "wrong shape": wrong}
    texts = [f"{fault}: {printable_list(names)}" for fault, names in faults.items() if names]
    if texts:
        way_out = way_out or _likely_cause(missing, extra, wrong)
        raise DamagedFileError(f"{path}: its tensors do not match the model ({'; '.join(texts)}); {way_out}")


def _likely_cause(missing: Iterable[str], extra: Iterable[str], wrong: Iterable[str]) -> str:
    if wrong:
        return "the model differs from its name or description; pass its name, or architecture={…}"
    if missing and not extra:
        return f"it is cut short, or one shard of several; {COPY_AGAIN}"
    if extra and not missing:
        return "the model has more parts than its name or description says; pass its name, or architecture={…}"
    return f"the model differs from its description; pass its name, or {COPY_AGAIN}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
