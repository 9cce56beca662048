"""The images of an export and their labels -> FileSource: one label per image, or several if any image has several."""

import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_cells import Task
from vitreous.data.label_sets import LabelArray, number_sets
from vitreous.data.sources.annotations.read import ExportedImages, read_export
from vitreous.data.sources.classes import check_classes, check_train_classes, number_classes
from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.source import FileSource
from vitreous.data.sources.spelling import in_class_order
from vitreous.errors import DataError
from vitreous.wording import listed, plural, printable, printable_list


def open_export(path: Path, root: Path | None = None, task: Task = "auto") -> FileSource | None:
    """Open the export of a labeling tool, a file or a folder; no image is opened.

    Images without a label show none of the classes if images have several labels, and are left out otherwise. Return
    None if the folder is not an export. Raises DataError as `read_export` does, and if no classifier can be trained
    with the labels, or they do not suit the task.
    """
    images, where = read_export(path, root), f"data.source={path}"
    if images is None:
        return None
    kept, sets, notes = _labeled(images, where)
    several = [labels for labels in sets if len(labels) > 1]
    example = listed([printable(name) for name in several[0]]) if several else ""
    have = "has" if len(several) == 1 else "have"
    reason = f"{len(several):,} of {plural(len(sets), 'image')} {have} several labels, such as {example}"
    if task == "single" and several:
        raise DataError(f"{where}: data.task=single, but {reason}; leave data.task out for several labels per image")
    is_multilabel, num_empty = task == "multilabel" or bool(several), sets.count(())
    if num_empty:
        how = "read as" if is_multilabel else "left out; --task multilabel reads such images as"
        notes.append(f"{where}: {plural(num_empty, 'image')} without a label: {how} showing none of the classes")
    if not is_multilabel:
        kept, sets = kept[[bool(labels) for labels in sets]], [labels for labels in sets if labels]
    splits = np.array(images.splits, dtype="<U5")[kept]
    classes = in_class_order({name for labels in sets for name in labels})
    labels: LabelArray
    if is_multilabel:
        classes, labels = number_sets(where, classes, sets)
    else:
        classes, labels = number_classes(where, classes, [labels[0] for labels in sets])
    if unused := {_clean(name) for name in images.classes} - set(classes):
        notes.append(f"{where}: {plural(len(unused), 'class', 'classes')} without images: {printable_list(unused)}")
    check_classes(where, classes, labels)
    check_train_classes(where, classes, labels, splits)
    return FileSource(
        name=path.resolve().name if path.is_dir() else path.stem,
        format=images.format,
        classes=tuple(classes),
        paths=PackedPaths(images.root, (images.paths[number] for number in kept.tolist())),
        labels=labels,
        splits=splits,
        notes=(*images.notes, *notes),
        task_reason="" if not is_multilabel else reason if several else "you asked for it",
    )


def _labeled(images: ExportedImages, where: str) -> tuple[NDArray[np.int64], list[tuple[str, ...]], list[str]]:
    """Return the numbers of the labeled images, each once, with their labels, and notes on what is left out."""
    found: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
    num_unlabeled, num_repeated, disputed = 0, 0, set[tuple[str, str]]()
    for number, (path, given, split) in enumerate(zip(images.paths, images.labels, images.splits, strict=True)):
        if given is None:
            num_unlabeled += 1
            continue
        labels = tuple(sorted({_clean(name) for name in given}))
        if "" in labels:
            raise DataError(f"{where}: image={printable(path)}: a label is empty; give it a name")
        first, known = found.setdefault((path, split), (number, labels))
        num_repeated += first != number and known == labels
        if known != labels:
            disputed.add((path, split))
    left_out = {
        plural(num_unlabeled, "unlabeled image"): num_unlabeled,
        f"{plural(len(disputed), 'image')} listed several times with different labels": len(disputed),
        plural(num_repeated, "repeated entry", "repeated entries"): num_repeated,
    }
    notes = [f"{where}: left out {text}" for text, count in left_out.items() if count]
    kept = {number: labels for key, (number, labels) in found.items() if key not in disputed}
    if not any(kept.values()):
        reasons = listed([text for text, count in left_out.items() if count]) or plural(len(kept), "image")
        raise DataError(f"{where}: no image has a label ({reasons}); label some, and export them again")
    return np.array(list(kept), dtype=np.int64), list(kept.values()), notes


def _clean(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())
