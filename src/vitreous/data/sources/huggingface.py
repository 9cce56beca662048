"""A Hugging Face data set, as a folder, by name (`hf://organisation/name`) or from Python -> DatasetSource.

Only data is read: code that a data set brings is never run (`datasets` 4 and later cannot; earlier ones must be told).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.sources.dataset import DatasetSource, number_classes
from vitreous.data.sources.source import SPLITS
from vitreous.data.sources.spelling import columns_of, split_of
from vitreous.errors import DataError, DataNotFoundError, MissingDependencyError

PREFIX = "hf://"
DATA_PREFIX = "hf://datasets/"
"""The unmistakable spelling, where `hf://` alone could be a model too."""

_SAVED = ("dataset_dict.json", "state.json")
_FINE_LABEL = "fine_label"


class _Rows:
    """Rows of one split as (image, label); images stay encoded."""

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
    """Whether `save_to_disk` made this folder, or it holds Parquet files, itself or in `data/`, and no other folder."""
    if any((folder / name).is_file() for name in _SAVED):
        return True
    others = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "." and entry.name != "data"]
    return not others and any(next(inner.glob("*.parquet"), None) for inner in (folder, folder / "data"))


def open_huggingface(name: str) -> DatasetSource:
    """Load a data set; what has to be fetched lands in the cache of `datasets`.

    Args:
        name: `hf://organisation/name`, `hf://datasets/organisation/name`, either with `/configuration` or `@revision`
            behind it; or the path of a folder.

    Returns:
        As `from_huggingface`.

    Raises:
        MissingDependencyError: The package `datasets` is not installed.
        DataNotFoundError: There is no such data set, or it was not reached.
        DataError: As `from_huggingface`, or the folder is damaged.
    """
    datasets = _datasets(name)
    try:
        if name.startswith(PREFIX):
            organisation, title, configuration, revision = _parse(name)
            place = f"{organisation}/{title}" if organisation else title
            loaded = datasets.load_dataset(place, configuration, revision=revision)
        elif any((Path(name) / saved).is_file() for saved in _SAVED):
            title, loaded = Path(name).resolve().name, datasets.load_from_disk(name)
        else:
            title, loaded = Path(name).resolve().name, datasets.load_dataset("parquet", data_files=_files(Path(name)))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"data.source={name}: no such data set ({_reason(error)}); check the name") from error
    except (ConnectionError, TimeoutError) as error:
        raise DataNotFoundError(f"data.source={name}: was not reached ({_reason(error)}); try later") from error
    except Exception as error:  # the package raises whatever its many readers do
        raise DataError(f"data.source={name}: cannot be loaded ({_reason(error)}); check the data set") from error
    return from_huggingface(loaded, title, name)


def is_huggingface(dataset: object) -> bool:
    """Whether an object is a data set of the package `datasets`, or a dictionary of such."""
    parts = list(dataset.values()) if isinstance(dataset, Mapping) else [dataset]
    return bool(parts) and all(hasattr(part, "features") and hasattr(part, "column_names") for part in parts)


def from_huggingface(loaded: Any, title: str, name: str) -> DatasetSource:
    """The samples of a `datasets.Dataset` or `DatasetDict`.

    The image is the one column of type Image, or the one called so; the label the one of type ClassLabel, or the one
    called so, or of CIFAR-100's two the fine one. Splits are known in their usual spellings; others are left out, and
    so is one without labels.

    Args:
        loaded: What `load_dataset` gives.
        title: What people call it.
        name: Where it came from, for messages.

    Raises:
        DataError: No or several columns that may be the image or the label, no split `train` of rows, odd labels.
    """
    rows_by_split, notes = _splits(loaded, name)
    first = next(iter(rows_by_split.values()))
    image = _column("path", "Image", first.features, name)
    label = _column("label", "ClassLabel", first.features, name)
    parts: dict[str, _Rows] = {}
    values: list[int | str] = []
    for split, rows in rows_by_split.items():
        found = [value.item() if isinstance(value, np.generic) else value for value in rows.with_format(None)[label]]
        if all(value is None or value == -1 for value in found):
            notes.append(f"{name}: {split} has no labels; left out")
            continue
        odd = next((value for value in found if not isinstance(value, int | str)), None)
        if odd is not None or None in found:
            raise DataError(f"data.source={name}: {label}={odd}: must be a class; leave such rows out")
        values += found
        parts[split] = _Rows(_encoded(rows.select_columns([image, label]), image), image, label)
    if not parts:
        raise DataError(f"data.source={name}: no split has labels in {label}; give a labelled data set")
    known = getattr(first.features[label], "names", None)
    classes, labels = number_classes(f"data.source={name}", known, values)
    if len(classes) < 2:
        raise DataError(f"data.source={name}: only one class, {classes[0]!r}; a classifier needs two")
    return DatasetSource(name=title, classes=classes, parts=parts, labels=labels, notes=notes)


def _splits(loaded: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(loaded, Mapping):
        return {"": loaded}, []
    found: dict[str, Any] = {}
    notes = []
    for given, rows in loaded.items():
        split = split_of(str(given))
        if split is None or split in found or len(rows) == 0:
            notes.append(f"{name}: split {given} of {len(rows):,} rows is left out")
        else:
            found[split] = rows
    if "train" not in found:
        raise DataError(f"data.source={name}: splits {', '.join(map(str, loaded))} hold no train; give one that does")
    if len(found) == 1:  # one split of a data set that brings no other: all of it
        return {"": found["train"]}, notes
    return {split: found[split] for split in SPLITS if split in found}, notes


def _column(role: str, kind: str, features: Mapping[str, Any], name: str) -> str:
    """The column of a type; where that does not decide, of a name. Raises DataError where neither does."""
    columns = list(features)
    typed = [column for column in columns if type(features[column]).__name__ == kind]
    for candidates in (typed, columns):
        if len(candidates) == 1 and candidates is typed:
            return candidates[0]
        named = [candidates[place] for place in columns_of(role, candidates)]
        if len(named) == 1:
            return named[0]
    if _FINE_LABEL in typed:
        return _FINE_LABEL
    what = "image" if role == "path" else role
    raise DataError(
        f"data.source={name}: no column among {', '.join(columns[:12])} is plainly the {what}; load it in Python, "
        f"rename_column() the right one to {what}, and give it to vitreous.train"
    )


def _encoded(rows: Any, image: str) -> Any:
    """Rows that give the bytes of images, not decoded ones."""
    feature = rows.features[image]
    if type(feature).__name__ != "Image" or not hasattr(rows, "cast_column"):
        return rows
    return rows.with_format(None).cast_column(image, type(feature)(decode=False))


def _files(folder: Path) -> dict[str, Sequence[str]]:
    """The Parquet files by split, as their names begin (`train-00000-of-00002.parquet`); where none does, all train."""
    inner = folder if next(folder.glob("*.parquet"), None) else folder / "data"
    files: dict[str, list[str]] = {}
    for file in sorted(inner.glob("*.parquet")):
        files.setdefault(split_of(file.stem.split("-")[0].split("_")[0]) or "", []).append(str(file))
    if "" in files and len(files) > 1:
        raise DataError(
            f"data.source={folder}: {Path(files[''][0]).name} names no split, others do; call it train-….parquet"
        )
    return {split or "train": found for split, found in files.items()}


def _parse(name: str) -> tuple[str, str, str | None, str | None]:
    """Organisation (or an empty text), name, configuration and revision."""
    place, _, revision = name.removeprefix(DATA_PREFIX).removeprefix(PREFIX).partition("@")
    words = place.split("/")
    if not 1 <= len(words) <= 3 or not all(words):
        raise DataError(f"data.source={name}: is no name of a data set; write hf://organisation/name")
    organisation, title = (words[0], words[1]) if len(words) > 1 else ("", words[0])
    return organisation, title, words[2] if len(words) == 3 else None, revision or None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _datasets(name: str):  # type: ignore[no-untyped-def]  # datasets is optional and carries no types
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"data.source={name}: needs datasets, which is not installed; `pip install 'vitreous[datasets]'`"
        ) from error
    return datasets
