"""The name of a data set, a path, or a Python object -> Source."""

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from vitreous.data.label_cells import Task
from vitreous.data.sources.annotations import is_export_name, open_export
from vitreous.data.sources.dataset import PYTHON_PREFIX, Dataset, DatasetSource, Samples, open_dataset
from vitreous.data.sources.folder import has_class_folders, open_folder, open_unlabeled
from vitreous.data.sources.huggingface import (
    PREFIX,
    from_huggingface,
    is_huggingface,
    is_huggingface_folder,
    open_huggingface,
)
from vitreous.data.sources.named import OPENERS
from vitreous.data.sources.rows import is_table_name
from vitreous.data.sources.shards.files import is_address, is_shards
from vitreous.data.sources.shards.source import ShardSource, open_shards
from vitreous.data.sources.source import SPLITS, ArraySource, FileSource, Source, Texts
from vitreous.data.sources.spelling import did_you_mean
from vitreous.data.sources.table import open_table
from vitreous.errors import DataError, DataNotFoundError
from vitreous.paths import expanded

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
    "check_task",
    "full_name",
    "known_sets",
    "open_object",
    "open_source",
]


def known_sets() -> tuple[str, ...]:
    """Return the names of the data sets that `open_source` opens by name."""
    return tuple(OPENERS)


def open_source(
    name_or_path: str | Path, root: str | Path | None = None, task: Task = "auto", *, needs_labels: bool = True
) -> Source:
    """Open a data set by name or path.

    Args:
        name_or_path: One of the following. To open a folder that has the name of a known set, write `./digits`.

            - one of `known_sets()`, or `hf://organization/name` for a Hugging Face data set;
            - a folder of class folders, or a folder with `train/` and `val/` or `test/` that hold class folders;
            - a table of paths and labels (`.csv`, `.tsv`, `.parquet`);
            - an export of a labeling tool, a file or a folder: COCO, CVAT for images, FiftyOne, Label Studio or YOLO;
            - a Hugging Face data set on disk: a folder from `save_to_disk`, or a folder of Parquet files;
            - tar files in the WebDataset layout: a folder of them, a tar file, or a pattern such as
              `train-{000..007}.tar`; also at an fsspec address such as `s3://`.
        root: For a table or an export, the folder of the images, which no path may leave; by default that of the file.
        task: Whether an image has one label or several; `auto` decides by the data. Only tables and exports can have
            several. Only a folder can be `unlabeled`.
        needs_labels: If False, a folder of images without class folders and without an export is opened as unlabeled.

    Returns:
        The samples; no image is decoded yet.

    Raises:
        DataNotFoundError: There is no such set or path, or a known set is not on this machine and cannot be downloaded.
        DataError: The path is another kind of file or holds no labeled images, or `root` is given for other data.
        MissingDependencyError: A package that this kind of source needs is not installed.
    """
    name, path = str(name_or_path), expanded(name_or_path)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # the name is too long, or a folder may not be entered
        raise DataNotFoundError(f"data.source={name}: cannot be opened ({error.strerror}); check the path") from error
    is_name = isinstance(name_or_path, str) and (name in OPENERS or name.startswith(PREFIX))
    are_shards = not is_name and is_shards(name_or_path)
    if task == "unlabeled":
        if is_name or are_shards or not is_folder:
            raise DataError(_not_unlabeled(name))
        if root is not None:
            raise DataError(f"data.root={root}: only applies to a table or an export, not to a folder; leave it out")
        return open_unlabeled(path)
    if not is_name and not are_shards and (is_file or (is_folder and not is_huggingface_folder(path))):
        images = None if root is None else expanded(root)
        if is_file and not is_export_name(name):
            return open_table(path, images, task)
        if (export := open_export(path, images, task)) is not None:
            return export
    if task == "multilabel":
        raise DataError(one_label_only(name))
    if root is not None:
        raise DataError(f"data.root={root}: only applies to a table or an export, and {name} is neither; leave it out")
    if is_name:
        return open_huggingface(name) if name.startswith(PREFIX) else OPENERS[name]()
    if are_shards:
        return open_shards(name)
    if is_folder:
        if is_huggingface_folder(path):
            return open_huggingface(str(path))
        return open_folder(path) if needs_labels or has_class_folders(path) else open_unlabeled(path)
    raise _not_found(name, path)


def open_object(dataset: Dataset) -> Source:
    """Open a Python object: (image, label) pairs, a data set of the package `datasets`, or one of either per split.

    Raises DataError if the object is not a data set that can be used; see `open_dataset` and `from_huggingface`.
    """
    if is_huggingface(dataset):
        return from_huggingface(dataset, type(dataset).__name__, f"{PYTHON_PREFIX}{type(dataset).__name__}")
    return open_dataset(dataset)


def check_task(source: Source, task: Task) -> None:
    """Raise DataError if a source that is open already does not suit the task that the user asks for."""
    if task == "unlabeled":
        raise DataError(_not_unlabeled(source.name))
    if task == "multilabel" and not source.is_multilabel:
        raise DataError(one_label_only(source.name))
    if task == "single" and source.is_multilabel:
        raise DataError(f"data.task=single: {source.name} has several labels per image; leave it out")


def _not_unlabeled(name: str) -> str:
    return f"data.task=unlabeled: {name} is not a folder of images; leave the task out, and its labels are not used"


def one_label_only(name: str) -> str:
    """Return why data that is neither a table nor an export is not read as multi-label."""
    return (
        f"data.task=multilabel: {name} has one label per image; list the images in a table of paths and labels, with "
        "rows such as `photo.jpg,cat;dog`"
    )


def full_name(name_or_path: str) -> str:
    """Return a name that identifies the same source from any working folder: a path becomes absolute."""
    if name_or_path in OPENERS or name_or_path.startswith((PREFIX, PYTHON_PREFIX)) or is_address(name_or_path):
        return name_or_path
    return str(expanded(name_or_path).resolve())


def _not_found(name: str, path: Path) -> DataNotFoundError:
    """Return the error for a name that is neither a set nor an existing path."""
    if name.startswith(PYTHON_PREFIX):
        return DataNotFoundError(
            f"data.source={name}: was passed from Python and is not stored in a file; pass it again: "
            "vitreous.train(dataset, resume=run) or run.evaluate(dataset)"
        )
    kind = "table" if is_table_name(path.name) else "file" if is_export_name(path.name) else "folder"
    return DataNotFoundError(f"data.source={name}: no such set and no such {kind}; {_suggestion(path)}")


def _suggestion(path: Path) -> str:
    """Suggest the known set, or the folder or table next to the path, that has the most similar name."""
    siblings: list[str] = []
    with suppress(OSError):  # there is no such folder, or it cannot be listed
        entries = [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]
        names = [entry.name for entry in entries if entry.is_dir() or is_table_name(entry.name)]
        # The names are compared, since long paths of one folder are always similar.
        siblings = [str(path.parent / name) for name in get_close_matches(path.name, names)]
    return did_you_mean(
        str(path),
        [*OPENERS, *siblings],
        otherwise=f"use one of {', '.join(sorted(OPENERS))}, or the path of an existing folder or table",
    )
