"""A name -> parts of your own: a change of the model, a loss, an augmentation.

A run and a file of weights have the name only. A program registers the parts before it opens them, so that a file
from elsewhere runs no code of its author.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.wording import printable

if TYPE_CHECKING:
    from torch import Generator, Tensor

IMPORTED = "VITREOUS_IMPORT"
"""Environment variable with the files of `--import`, for the other processes of a run."""

_registered: dict[str, "Extension"] = {}


@dataclass(frozen=True)
class Extension:
    """Parts under one name; see `register`."""

    name: str
    change_model: Callable[[Any], None] | None = None
    loss: "Callable[[Tensor, Tensor], Tensor] | None" = None
    augment: "Callable[[Tensor, Generator], Tensor] | None" = None


def register(
    name: str,
    *,
    change_model: Callable[[Any], None] | None = None,
    loss: "Callable[[Tensor, Tensor], Tensor] | None" = None,
    augment: "Callable[[Tensor, Generator], Tensor] | None" = None,
) -> None:
    """Give parts of your own a name, with which `model.extension` selects them. A name may be registered again.

    Args:
        name: Name of the parts, an identifier.
        change_model: Changes a new `VisionTransformer` in place, e.g. replaces the attention of its blocks. Called
            whenever the model is built, also before weights are loaded into it. What it draws from torch's global
            generator depends on the seed of the run.
        loss: Takes logits `[images, classes]`, and class numbers `[images]` or, of mixed images, probabilities
            `[images, classes]`; returns the loss of each image, `[images]`. It replaces `objective.loss` in training.
        augment: Takes normalized images `[images, channels, height, width]` and a generator on their device; returns
            other ones of the same shape. Applied to the images of each step, after all augmentation except mixing.

    Raises:
        ConfigError: The name is not an identifier, or there are no parts.

    Example:
        >>> from torch.nn import functional as F
        >>> def smooth(logits, labels):
        ...     return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3)
        >>> register("smooth", loss=smooth)
        >>> find_extension("smooth").loss is smooth
        True
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"name={printable(str(name))}: is not an identifier; use letters, digits and underscores")
    if change_model is None and loss is None and augment is None:
        raise ConfigError(f"name={name}: has no parts; give change_model, loss or augment")
    _registered[name] = Extension(name, change_model, loss, augment)


def find_extension(name: str | None) -> Extension:
    """Return the parts that are registered under a name; none for None. Raises UnknownNameError for other names."""
    if name is None:
        return Extension("")
    if name not in _registered:
        for file in filter(None, os.environ.get(IMPORTED, "").split(os.pathsep)):
            import_file(Path(file))
    if name not in _registered:
        raise UnknownNameError(
            f"model.extension={printable(name)}: is not registered here; import the module that calls "
            "vitreous.register, on the command line with --import FILE"
        )
    return _registered[name]


def changes_images(name: str | None) -> bool:
    """Return True if parts of this name are registered here and augment images."""
    return name in _registered and _registered[name].augment is not None


def import_file(path: Path) -> None:
    """Run a Python file that registers parts. Its folder is not searched for other modules.

    Raises:
        ConfigError: The file cannot be imported.
    """
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--import {printable(str(path))}: no such Python file; give a .py file that exists")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules.setdefault(path.stem, module)
    try:
        SourceFileLoader(path.stem, str(path)).exec_module(module)
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}")
        raise ConfigError(f"--import {printable(str(path))}: {reason}; correct the file") from error
