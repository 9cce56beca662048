"""The content of a Label Studio export, JSON or JSON-MIN -> Export: the chosen choices of a task are its labels.

If there are no choices, the labels of its boxes, polygons and other regions are. Predictions and skipped annotations
are not read. A task whose annotations differ is not labeled, unless one of them is the ground truth.
https://labelstud.io/guide/export
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vitreous.data.sources.annotations.export import Entry, Export
from vitreous.data.sources.image_files import is_image_name
from vitreous.data.sources.spelling import COLUMN_SPELLINGS, columns_of, squeeze
from vitreous.errors import DataError
from vitreous.wording import plural, printable_list

_OWN = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "annotations",
        "predictions")  # fmt: skip
"""Fields of a record of JSON-MIN that neither the user's data nor the labeling interface has."""

_STORED = re.compile(r"(?:https?://[^/]*)?/data/(?:local-files/\?d=)?")
_CHOICES = "choices"

Answers = dict[str, frozenset[str]]
"""The names in one annotation, by the field of the labeling interface and the type of its results."""


def read_label_studio(document: object, where: str, folder: Path) -> Export | None:
    """Read the tasks of an export; None if the content is not of this format.

    Raises DataError if a task has no image, or several questions have choices.
    """
    if not isinstance(document, list) or not document or not all(isinstance(task, dict) for task in document):
        return None
    if all(isinstance(task.get("data"), dict) for task in document):
        tasks = [(task["data"], list(_annotations(task))) for task in document]
    elif all("annotator" in record or "annotation_id" in record for record in document):
        tasks = list(_tasks_of(document, where))
    else:
        return None
    fields = {name for _, annotations in tasks for answers in annotations for name in answers}
    questions = {name for name in fields if name.endswith(f"/{_CHOICES}")}
    if len(questions) > 1:
        names = printable_list(name.rpartition("/")[0] for name in questions)
        raise DataError(f"{where}: choices of several questions ({names}); keep one of them in the file")
    entries, num_disputed = [], 0
    for number, (data, annotations) in enumerate(tasks):
        votes = {frozenset[str]().union(*(answers.get(name, ()) for name in questions or fields))
                 for answers in annotations}  # fmt: skip
        num_disputed += len(votes) > 1
        labels = tuple(sorted(votes.pop())) if len(votes) == 1 else None
        entries.append(Entry(_image(data, f"{where}: task {number + 1}"), labels))
    note = f"{plural(num_disputed, 'task')} whose annotations differ: read as not labeled"
    return Export("Label Studio tasks", entries, (), (note,) if num_disputed else ())


def _annotations(task: dict[str, Any]) -> Iterator[Answers]:
    """Yield the answers of each annotation of a task, or only of the ground truth."""
    done = [one for one in _objects(task.get("annotations", task.get("completions"))) if not one.get("was_cancelled")]
    for one in [one for one in done if one.get("ground_truth")] or done:
        answers: Answers = {}
        for result in _objects(one.get("result")):
            _add(answers, result.get("from_name"), result.get("type"), result.get("value"))
        yield answers


def _tasks_of(records: list[dict[str, Any]], where: str) -> Iterator[tuple[dict[str, Any], list[Answers]]]:
    """Yield the data and the answers of each task, from one record of JSON-MIN per annotation."""
    asked = _questions(records, where)
    tasks: dict[str, tuple[dict[str, Any], list[Answers]]] = {}
    for number, record in enumerate(records):
        answers: Answers = {}
        for name, value in record.items():
            if name in asked:
                _add(answers, name, _CHOICES, {_CHOICES: [value]} if isinstance(value, str) else value)
            for region in _objects(value):
                for kind in region:
                    _add(answers, name, kind, region)
        tasks.setdefault(str(record.get("id", f"record {number}")), (record, []))[1].append(answers)
    yield from tasks.values()


def _questions(records: list[dict[str, Any]], where: str) -> set[str]:
    """Return the fields of JSON-MIN that hold choices: one choice is plain text, like the user's own data."""
    fields = [item for record in records for item in record.items()]
    asked = {name for name, value in fields if isinstance(value, dict) and _CHOICES in value}
    if asked or any(kind.endswith("labels") for _, value in fields for region in _objects(value) for kind in region):
        return asked
    texts = {name for name, value in fields if isinstance(value, str)} - {*_OWN, _image_field(records[0], where)}
    likely = {name for name in texts if squeeze(name) in (*COLUMN_SPELLINGS["label"], "choice", _CHOICES)}
    asked = likely if len(likely) == 1 else texts
    if len(asked) != 1:
        names = printable_list(asked) or "none"
        raise DataError(f"{where}: cannot decide which field holds the choice ({names}); export the project as JSON")
    return asked


def _add(answers: Answers, name: object, kind: object, value: object) -> None:
    """Add the names in one result, if it is a choice or a region with labels."""
    found = value.get(kind) if isinstance(value, dict) else None
    if isinstance(kind, str) and isinstance(found, list) and (kind == _CHOICES or kind.endswith("labels")):
        key = f"{name}/{kind}"
        answers[key] = answers.get(key, frozenset()) | {one for one in found if isinstance(one, str)}


def _objects(items: object) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _image_field(data: dict[str, Any], where: str) -> str:
    names = [name for name, value in data.items() if isinstance(value, str)]
    named = [names[position] for position in columns_of("path", names)]
    found = named or [name for name in names if is_image_name(data[name].partition("?")[0])]
    if not found:
        raise DataError(f"{where}: has no image among its data ({printable_list(data)}); name its path image")
    return found[0]


def _image(data: dict[str, Any], where: str) -> str:
    """Return the path of a task's image below the folder in which Label Studio, or its local storage, keeps files."""
    stored: str = data[_image_field(data, where)]
    match = _STORED.match(stored)
    return unquote(stored[match.end() :]) if match else stored
