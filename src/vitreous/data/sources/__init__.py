"""A set's name or a path -> Source."""

from pathlib import Path

from vitreous.data.sources.digits import open_digits
from vitreous.data.sources.folder import open_folder
from vitreous.data.sources.mnist import FASHION_MNIST, MNIST, open_idx_set
from vitreous.data.sources.source import SPLITS, ArraySource, FileSource, Source, Texts
from vitreous.errors import DataError, DataNotFoundError, nearest

__all__ = ["SPLITS", "ArraySource", "FileSource", "Source", "Texts", "known_sets", "open_source"]

_OPENERS = {
    "digits": open_digits,
    "mnist": lambda: open_idx_set(MNIST),
    "fashion-mnist": lambda: open_idx_set(FASHION_MNIST),
}


def known_sets() -> tuple[str, ...]:
    """The names that `open_source` takes besides paths."""
    return tuple(_OPENERS)


def open_source(name_or_path: str | Path) -> Source:
    """Open a set by name, or a folder by path. A folder that is called like a set is reached as `./digits`.

    Args:
        name_or_path: One of `known_sets()`, or a folder of class folders, or one with `train/` and `val/`, `test/`.

    Returns:
        The samples; no image is decoded yet.

    Raises:
        DataNotFoundError: There is no such set and no such path, or a named set is not on this machine.
        DataError: The path is a file, or a folder that is no classification set.
    """
    if isinstance(name_or_path, str) and name_or_path in _OPENERS:
        return _OPENERS[name_or_path]()
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.exists():
        raise DataError(f"data.source={path}: is a file; give the folder that holds the class folders")
    raise DataNotFoundError(f"data.source={name_or_path}: no such set and no such folder; {_suggest(path)}")


def _suggest(path: Path) -> str:
    """The nearest set or neighbouring folder."""
    siblings: list[str] = []
    if path.parent.is_dir():
        siblings = [str(entry) for entry in path.parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    near = nearest(str(path), [*_OPENERS, *siblings])
    return near if near.startswith("did you mean") else f"{nearest('', _OPENERS)}, or the path of an existing folder"
