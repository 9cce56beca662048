"""A Hugging Face data set, as a folder, by name (`hf://organization/name`) or from Python -> DatasetSource.

Code that comes with a data set is never run: `datasets` 4 and later cannot, and earlier versions only on request.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.sources.classes import Label, check_classes, number_classes, renumbered
from vitreous.data.sources.dataset import DatasetSource
from vitreous.data.sources.source import SPLITS, first_line
from vitreous.data.sources.spelling import columns_of, split_of
from vitreous.errors import DataError, DataNotFoundError, optional_module
from vitreous.wording import listed, plural

PREFIX = "hf://"
DATA_PREFIX = "hf://datasets/"
"""An unambiguous prefix where `hf://` could also be the address of a model."""

_SAVED = ("dataset_dict.json", "state.json")
_FINE_LABEL = "fine_label"


class _Pairs:
    """The rows of one split as (image, label) pairs; images stay encoded."""

    def __init__(self, rows: Any, image: str, label: str) -> None:
        self.rows, self.image, self.label = rows, image, label

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any, /) -> tuple[object, object]:
        row = self.rows[int(index)]
        image = row[self.image]
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        return image, row[self.label]


def is_huggingface_folder(folder: Path) -> bool:
    """Return True if `save_to_disk` wrote the folder, or if it or its `data/` has Parquet files but no other folder."""
    try:
        if any((folder / name).is_file() for name in _SAVED):
            return True
        others = [
            inner for inner in folder.iterdir() if inner.is_dir() and inner.name[0] != "." and inner.name != "data"
        ]
        return not others and any(_parquet_in(inner) for inner in (folder, folder / "data"))
    except OSError:  # `open_folder` reports it
        return False


def open_huggingface(name: str) -> DatasetSource:
    """Load a data set; `datasets` stores what it downloads in its own cache.

    Args:
        name: The path of a folder, or `hf://organization/name` or `hf://datasets/organization/name`. A name may end
            in `/configuration` and `@revision`.

    Raises:
        MissingDependencyError: The package `datasets` is not installed.
        DataNotFoundError: There is no such data set, or it cannot be reached.
        DataError: The folder is damaged, or `from_huggingface` cannot use the data set.
    """
    datasets = optional_module("datasets", f"data.source={name}", "run `pip install 'vitreous[datasets]'`")
    folder = Path(name)
    try:
        if name.startswith(PREFIX):
            repository, configuration, revision = _parse(name)
            title = repository.rpartition("/")[2]
            loaded = datasets.load_dataset(repository, configuration, revision=revision)
        elif any((folder / saved).is_file() for saved in _SAVED):
            title, loaded = folder.resolve().name, datasets.load_from_disk(name)
        else:
            title, loaded = folder.resolve().name, datasets.load_dataset("parquet", data_files=_files(folder))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"data.source={name}: not found ({first_line(error)}); check the name") from error
    except (ConnectionError, TimeoutError) as error:
        raise DataNotFoundError(
            f"data.source={name}: could not be reached ({first_line(error)}); check the network and try again"
        ) from error
    except Exception as error:  # the package's many readers raise errors of any type
        raise DataError(
            f"data.source={name}: `datasets` could not load it ({first_line(error)}); fix the data set"
        ) from error
    return from_huggingface(loaded, title, name)


def is_huggingface(dataset: object) -> bool:
    """Return True if an object is a `datasets.Dataset` or a dictionary of such; streams are not."""
    sets = list(dataset.values()) if isinstance(dataset, Mapping) else [dataset]
    named = ("features", "column_names", "__len__")
    return bool(sets) and all(hasattr(one, name) for one in sets for name in named)


def from_huggingface(loaded: Any, title: str, name: str) -> DatasetSource:
    """Convert a `datasets.Dataset` or `DatasetDict`.

    The image column is the only one of type Image, or else the one named like an image. The label column is the only
    one of type ClassLabel, or else the one named like a label, or else `fine_label` (CIFAR-100 has two). Splits are
    recognized in their common spellings. Other splits and splits without labels are left out, and a note says so.
    Messages call the data set `name`.

    Raises DataError if the image or label column is missing or ambiguous, there is no `train` split, a label is not a
    class, or there is only one class.
    """
    rows_by_split, notes = _splits(loaded, name)
    first = next(iter(rows_by_split.values()))
    image = _column("path", "Image", first.features, name)
    label = _column("label", "ClassLabel", first.features, name)
    by_split: dict[str, _Pairs] = {}
    known, labels = getattr(first.features[label], "names", None), list[Label]()
    for split, rows in rows_by_split.items():
        values = [value.item() if isinstance(value, np.generic) else value for value in rows.with_format(None)[label]]
        if all(value is None or value == -1 for value in values):
            notes.append(f"{name}: split {split or 'train'} has no labels and is left out")
            continue
        for number, value in enumerate(values):
            if not isinstance(value, int | str):
                place = f"row {number}{f' of {split}' if split else ''}"
                raise DataError(
                    f"data.source={name}: {place}: {label}={value}: neither a class index nor a class name; "
                    "filter such rows out"
                )
        labels += renumbered(f"data.source={name}", values, getattr(rows.features[label], "names", None), known)
        by_split[split] = _Pairs(_encoded(rows.select_columns([image, label]), image), image, label)
    if not by_split:
        raise DataError(f"data.source={name}: column {label} has no labels in any split; use a labeled data set")
    classes, numbers = number_classes(f"data.source={name}", known, labels)
    check_classes(f"data.source={name}", classes, numbers)
    return DatasetSource(name=title, classes=classes, by_split=by_split, labels=numbers, notes=notes)


def _splits(loaded: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the rows by split, and notes on the splits that are left out."""
    if not isinstance(loaded, Mapping):
        return {"": loaded}, []
    found: dict[str, Any] = {}
    notes = []
    for given, rows in loaded.items():
        split = split_of(str(given))
        if split is None or split in found or len(rows) == 0:
            notes.append(f"{name}: split {given} ({plural(len(rows), 'row')}) is left out")
        else:
            found[split] = rows
    if "train" not in found:
        raise DataError(
            f"data.source={name}: no train split among {listed(list(map(str, loaded)))}; use a data set with one"
        )
    if len(found) == 1:  # `datasets` names the only split of a set without splits `train`
        return {"": found["train"]}, notes
    return {split: found[split] for split in SPLITS if split in found}, notes


def _column(role: str, feature_type: str, features: Mapping[str, Any], name: str) -> str:
    """Find a column by type, or if that is not decisive, by name. Raises DataError if neither is."""
    columns = list(features)
    typed = [column for column in columns if type(features[column]).__name__ == feature_type]
    if len(typed) == 1:
        return typed[0]
    for candidates in (typed, columns):
        named = [candidates[position] for position in columns_of(role, candidates)]
        if len(named) == 1:
            return named[0]
    if _FINE_LABEL in typed:
        return _FINE_LABEL
    wanted = "image" if role == "path" else role
    raise DataError(
        f"data.source={name}: cannot decide which of the columns {listed(columns, 12)} is the {wanted}; load it in "
        f"Python, call rename_column(COLUMN, {wanted!r}) and pass the result to vitreous.train"
    )


def _encoded(rows: Any, image: str) -> Any:
    """Return the same rows with the bytes of the images instead of decoded images."""
    feature = rows.features[image]
    if type(feature).__name__ != "Image" or not hasattr(rows, "cast_column"):
        return rows
    return rows.with_format(None).cast_column(image, type(feature)(decode=False))


def _files(folder: Path) -> dict[str, Sequence[str]]:
    """Return the Parquet files by the split that begins their names, as in `train-00000-of-00002.parquet`.

    If no name begins with a split, all files are `train`.
    """
    files: dict[str, list[str]] = {}
    for file in _parquet_in(folder) or _parquet_in(folder / "data"):
        files.setdefault(split_of(file.stem.split("-")[0].split("_")[0]) or "", []).append(str(file))
    if "" in files and len(files) > 1:
        odd = Path(files[""][0]).name
        raise DataError(
            f"data.source={folder}: the name of {odd} does not begin with a split, but others do; "
            f"rename it, e.g. to train-{odd}"
        )
    return {split or "train": found for split, found in files.items()}


def _parquet_in(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder, without hidden ones, which macOS adds to archives."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def _parse(name: str) -> tuple[str, str | None, str | None]:
    """Split `hf://…` into the repository, the configuration and the revision."""
    place, _, revision = name.removeprefix(DATA_PREFIX).removeprefix(PREFIX).partition("@")
    words = place.split("/")
    if not 1 <= len(words) <= 3 or not all(words):
        raise DataError(f"data.source={name}: not the name of a data set; write hf://organization/name")
    return "/".join(words[:2]), words[2] if len(words) == 3 else None, revision or None
