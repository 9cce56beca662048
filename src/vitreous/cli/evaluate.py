"""`vitreous evaluate` -> how good a model is."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, accuracy_line, print_json, print_table
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.evaluator import evaluate as evaluate_run
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.wording import plural

_MOST_COLUMNS = 14
"""Largest number of classes for which the confusion matrix fits a terminal; `--json` always includes it."""


def evaluate(
    run: Path,
    data: str | None = None,
    /,
    *,
    root: str | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Score a model on the images that its run held out, or on other labeled images.

    Args:
        run: Run folder; with DATA also a model.safetensors file.
        data: A folder, table or named data set; its test split if it has one, else all its images.
        root: The folder that a table's paths are relative to; default: the table's own.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: Print one JSON document instead of tables.
    """
    with Screen(stderr=as_json) as screen:
        found = evaluate_run(run, data, root=root, device=resolve_device(device), listener=screen.listen)
    if as_json:
        print_json(found.as_dict())
        return
    if isinstance(found, LabelEvaluation):
        for sentence in found.sentences():
            screen.say(sentence, style="bold green" if sentence.startswith("mAP") else None)
        screen.say()
        print_table(screen.console, found.table(), numbers_from=1)
        return
    screen.say(f"{found.data}: accuracy {accuracy_line(found.score.as_dict())}", style="bold green")
    screen.say(f"loss {found.score.loss:.4f}, macro F1 {found.macro_f1:.4f}\n")
    print_table(screen.console, _class_rows(found), numbers_from=1)
    if len(found.classes) <= _MOST_COLUMNS:
        screen.say("\nconfusion matrix (rows: true class, columns: predicted class)")
        print_table(screen.console, _confusion_rows(found), numbers_from=1)
    for true, predicted, count in found.confused_most():
        screen.say(f"{true} predicted as {predicted}: {plural(count, 'image')}")


def _class_rows(found: Evaluation) -> list[tuple[str, ...]]:
    numbers = [
        (row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.num_images:,}")
        for row in found.classes
    ]
    return [("class", "precision", "recall", "F1", "images"), *numbers]


def _confusion_rows(found: Evaluation) -> list[tuple[str, ...]]:
    names = [row.name for row in found.classes]
    rows = zip(names, found.confusion.tolist(), strict=True)
    return [("", *names), *((name, *(str(count or "·") for count in counts)) for name, counts in rows)]
