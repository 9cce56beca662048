"""Vision Transformers you can see through: train one on your own images, see what it looks at, ship it."""

from typing import TYPE_CHECKING

from vitreous.api import compare, embed, explain, load_run, train
from vitreous.extensions import register
from vitreous.use.run import Run
from vitreous.use.series.series import Series
from vitreous.version import __version__ as __version__

if TYPE_CHECKING:
    from vitreous.classifier import VitreousClassifier
    from vitreous.model import create_model, load_model

__all__ = [
    "Run", "Series", "VitreousClassifier", "compare", "create_model", "embed", "explain", "load_model", "load_run",
    "register", "train",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what needs torch or scikit-learn on first use, so that `import vitreous` takes milliseconds."""
    if name == "VitreousClassifier":
        from vitreous.classifier import VitreousClassifier

        return VitreousClassifier
    if name in ("create_model", "load_model"):
        from vitreous import model

        return getattr(model, name)
    raise AttributeError(f"module 'vitreous' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
