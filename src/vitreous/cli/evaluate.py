"""`vitreous evaluate` -> how good a model is."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.paths import expanded
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.evaluator import evaluate as evaluate_run
from vitreous.use.evaluate.known import Known
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets, rejecting_text, sets_text, usual
from vitreous.wording import plural, shortened

_MOST_COLUMNS = 14
"""Largest number of classes for which the confusion matrix fits a terminal; `--json` includes it for up to 1,000."""
_MATRIX_WIDTH = 70
"""Total length of the class names, in characters, above which the columns of the confusion matrix are numbered."""


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
    folder = RunFolder(expanded(run))
    outputs = outputs_of_run(folder) if data is None and folder.model.is_file() else {}
    sets, rejecting = measure_sets(outputs), measure_rejecting(outputs)
    if as_json:
        print_json(found.as_dict() | {"sets": sets, "rejecting": rejecting})
        return
    if isinstance(found, LabelEvaluation):
        _say_labels(screen, found)
        return
    screen.say_accuracy(f"{found.data}: accuracy", found.score.as_dict())
    _say_known(screen, found.known)
    top = "".join(f", top-{k} accuracy {share:.1%}" for k, share in found.top_k.items())
    agreement = f"Cohen's kappa {found.kappa:.3f}, MCC {found.mcc:.3f}"
    calibrated = f" ({found.calibration.nll:.4f} after calibration)" if found.calibration is not None else ""
    screen.say(f"loss {found.score.loss:.4f}{calibrated}, macro F1 {found.macro_f1:.4f}, {agreement}{top}")
    if found.calibration is not None:
        screen.say(found.calibration.sentence)
    for sentence in (*map(sets_text, usual(sets)), *([rejecting_text(rejecting)] if rejecting else [])):
        screen.say(sentence)
    screen.say()
    heading, *rows = found.class_rows
    print_table(screen.console, [heading, *((shortened(name), *values) for name, *values in rows)], numbers_from=1)
    if len(found.classes) <= _MOST_COLUMNS:
        screen.say("\nconfusion matrix (rows: true class, columns: predicted class)")
        print_table(screen.console, _confusion_rows(found), numbers_from=1)
    for true, predicted, count in found.confused_most():
        screen.say(f"{shortened(true)} predicted as {shortened(predicted)}: {plural(count, 'image')}")


def _confusion_rows(found: Evaluation) -> list[tuple[str, ...]]:
    names = columns = [shortened(row.name) for row in found.classes]
    if sum(map(len, names)) > _MATRIX_WIDTH:
        columns = [str(number) for number in range(1, len(names) + 1)]
        names = [f"{number} {name}" for number, name in zip(columns, names, strict=True)]
    rows = zip(names, found.confusion.tolist(), strict=True)
    return [("", *columns), *((name, *(str(count or "·") for count in counts)) for name, counts in rows)]


def _say_labels(screen: Screen, found: LabelEvaluation) -> None:
    """Print the scores of a model that predicts several labels per image."""
    for sentence in found.sentences():
        screen.say(sentence, style="bold green" if sentence.startswith("mAP") else None)
    _say_known(screen, found.known)
    screen.say()
    print_table(screen.console, found.table(), numbers_from=1)


def _say_known(screen: Screen, known: Known | None) -> None:
    if known is not None and known.sentence:
        screen.say(f"note: {known.sentence}", style="yellow")
