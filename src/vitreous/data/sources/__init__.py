"""A set's name, a path, or a Python object -> Source."""

from pathlib import Path

from vitreous.data.sources.cifar import CIFAR10, CIFAR100, open_cifar
from vitreous.data.sources.dataset import PYTHON_PREFIX, Dataset, DatasetSource, Samples, open_dataset
from vitreous.data.sources.digits import open_digits
from vitreous.data.sources.folder import open_folder
from vitreous.data.sources.huggingface import (
    PREFIX,
    from_huggingface,
    is_huggingface,
    is_huggingface_folder,
    open_huggingface,
)
from vitreous.data.sources.mnist import FASHION_MNIST, MNIST, open_idx_set
from vitreous.data.sources.rows import is_table_name
from vitreous.data.sources.shards.files import is_address, is_shards
from vitreous.data.sources.shards.source import ShardSource, open_shards
from vitreous.data.sources.source import SPLITS, ArraySource, FileSource, Source, Texts
from vitreous.data.sources.table import open_table
from vitreous.errors import DataError, DataNotFoundError, nearest

__all__ = [
    "PYTHON_PREFIX",
    "SPLITS",
    "ArraySource",
    "Dataset",
    "DatasetSource",
    "FileSource",
    "Samples",
    "ShardSource",
    "Source",
    "Texts",
    "full_name",
    "known_sets",
    "open_object",
    "open_source",
]

_OPENERS = {
    "digits": open_digits,
    "mnist": lambda: open_idx_set(MNIST),
    "fashion-mnist": lambda: open_idx_set(FASHION_MNIST),
    "cifar10": lambda: open_cifar(CIFAR10),
    "cifar100": lambda: open_cifar(CIFAR100),
}


def known_sets() -> tuple[str, ...]:
    """The names that `open_source` takes besides paths."""
    return tuple(_OPENERS)


def open_source(name_or_path: str | Path, root: str | Path | None = None) -> Source:
    """Open a set by name, or by path. A folder that is called like a set is reached as `./digits`.

    Args:
        name_or_path: One of `known_sets()`; a folder of class folders, or one with `train/` and `val/`, `test/`; a
            table of paths and labels (`.csv`, `.tsv`, `.parquet`); `hf://organisation/name`, or such a set's folder;
            tar files in WebDataset's layout: a folder of them, `train-{000..007}.tar`, either at an fsspec address too.
        root: What a table's paths are relative to and stay in; None: its own folder.

    Returns:
        The samples; no image is decoded yet.

    Raises:
        DataNotFoundError: There is no such set and no such path, or a named set is not on this machine.
        DataError: The path is a file of another kind, or holds no classification set; or a root without a table.
        MissingDependencyError: It needs a package that is not installed.
    """
    path = Path(name_or_path).expanduser()
    is_name = isinstance(name_or_path, str) and (name_or_path in _OPENERS or name_or_path.startswith(PREFIX))
    are_tars = not is_name and is_shards(name_or_path)
    if not is_name and not are_tars and path.is_file():
        return open_table(path, None if root is None else Path(root).expanduser())
    if root is not None:
        raise DataError(f"data.root={root}: is for the paths of a table, {name_or_path} is none; leave it out")
    if isinstance(name_or_path, str) and name_or_path in _OPENERS:
        return _OPENERS[name_or_path]()
    if is_name:
        return open_huggingface(str(name_or_path))
    if are_tars:
        return open_shards(str(name_or_path))
    if path.is_dir():
        return open_huggingface(str(path)) if is_huggingface_folder(path) else open_folder(path)
    if str(name_or_path).startswith(PYTHON_PREFIX):
        raise DataNotFoundError(
            f"data.source={name_or_path}: was given from Python, and no file holds it; give it again, as in "
            "vitreous.train(dataset, resume=run) or run.evaluate(dataset)"
        )
    kind = "table" if is_table_name(path.name) else "folder"
    raise DataNotFoundError(f"data.source={name_or_path}: no such set and no such {kind}; {_suggest(path)}")


def open_object(dataset: Dataset) -> Source:
    """Open what Python gives: a set of (image, label) pairs, or one of the package `datasets`; or such by split.

    Raises:
        DataError: It is no such set; see `open_dataset` and `from_huggingface`.
    """
    if is_huggingface(dataset):
        return from_huggingface(dataset, type(dataset).__name__, f"{PYTHON_PREFIX}{type(dataset).__name__}")
    return open_dataset(dataset)


def full_name(name_or_path: str) -> str:
    """What names the same source from any working folder."""
    if name_or_path in _OPENERS or name_or_path.startswith((PREFIX, PYTHON_PREFIX)) or is_address(name_or_path):
        return name_or_path
    return str(Path(name_or_path).expanduser().resolve())


def _suggest(path: Path) -> str:
    """The nearest set, or neighbouring folder or table."""
    siblings: list[str] = []
    if path.parent.is_dir():
        entries = [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]
        siblings = [str(entry) for entry in entries if entry.is_dir() or is_table_name(entry.name)]
    near = nearest(str(path), [*_OPENERS, *siblings])
    return near if near.startswith("did you mean") else f"{nearest('', _OPENERS)}, or the path of an existing folder"
