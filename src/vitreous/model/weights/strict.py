"""Tensors of a file -> the same, or one error that names all that are missing, strange, misshapen or not finite."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.cost.count import count_parameters

Shapes = Mapping[str, tuple[int, ...]]

AGAIN = "copy or train it again"
_DEEPEST = 1000
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_values(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise DamagedFileError for tensors that are no finite floating-point numbers."""
    faulty = [name for name, tensor in state.items() if tensor.dtype not in _DTYPES or not tensor.isfinite().all()]
    if faulty:
        raise DamagedFileError(
            f"{path}: holds weights that are not finite floating-point numbers: {listed(faulty)}; {AGAIN}"
        )


def check_plausible(path: Path, config: ModelConfig, found: Shapes) -> None:
    """Raise DamagedFileError where a description claims far more than is there: it must not cost time or memory."""
    claimed, there = count_parameters(config), sum(map(math.prod, found.values()))
    if claimed > 10 * there:
        raise DamagedFileError(f"{path}: its architecture has {claimed} parameters, its tensors {there}; {AGAIN}")
    if config.depth > max(_DEEPEST, len(found)):
        raise DamagedFileError(f"{path}: its architecture has {config.depth} blocks of {len(found)} tensors; {AGAIN}")


def check_shapes(path: Path, *, expected: Shapes, found: Shapes, way_out: str | None = None) -> None:
    """Raise DamagedFileError unless both name the same tensors, of the same shapes.

    Args:
        path: Of the file.
        expected: What the model has.
        found: What the file has.
        way_out: Ends the message; None finds the likely cause.
    """
    wrong = [
        f"{name} is {_shape(found[name])}, must be {_shape(expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    faults = {"missing": missing, "unexpected": extra, "wrong shape": wrong}
    texts = [f"{fault}: {listed(names)}" for fault, names in faults.items() if names]
    if texts:
        way_out = way_out or _cause(missing, extra, wrong)
        raise DamagedFileError(f"{path}: its tensors are not the model's ({'; '.join(texts)}); {way_out}")


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first few of some names, sorted, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(map(shown, ordered[:most])) + more


def shown(name: str, most: int = 120) -> str:
    """A stranger's words as a message may repeat them: on one line, not too long, no control of the terminal."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= most else f"{text[:most]}…"


def _cause(missing: Iterable[str], extra: Iterable[str], wrong: Iterable[str]) -> str:
    if wrong:
        return "it is another model than its name or shapes say; pass its name, or architecture={…}"
    if missing and not extra:
        return f"it was cut short, or is one part of several; {AGAIN}"
    if extra and not missing:
        return "it has parts that its name or description do not say; pass its name, or architecture={…}"
    return f"it is another model than it says; pass its name, or {AGAIN}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
