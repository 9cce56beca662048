"""`vitreous evaluate` -> how good a model is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.evaluation import Evaluation, shown
from vitreous.use.evaluate.evaluator import evaluate as evaluate_run
from vitreous.use.evaluate.known import Known
from vitreous.use.evaluate.metrics.scores import as_pair
from vitreous.use.evaluate.multilabel import LabelEvaluation
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
    cost: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Score a model on the images that its run held out, or on other labeled images; or predictions of any tool.

    Args:
        run: Run folder; with DATA also a model.safetensors file. Or a table with the columns `true` and `predicted`,
            and optionally `probability` or `p_CLASS` for each class.
        data: A folder, table or named data set; its test split if it has one, else all its images.
        root: The folder that a table's paths are relative to; default: the table's own.
        device: auto, cpu, cuda, cuda:1 or mps.
        cost: Cost of a mistake, such as defect:good=20 for a defect that is predicted as good; may be repeated. Every
            other mistake costs 1. Shows what predicting the class with the least expected cost changes.
        as_json: Print one JSON document instead of tables.
    """
    with Screen(stderr=as_json) as screen:
        where = resolve_device(device)
        found = evaluate_run(run, data, root=root, device=where, cost=cost, listener=screen.listen)
    if as_json:
        print_json(found.as_dict())
        return
    if isinstance(found, LabelEvaluation):
        _say_labels(screen, found)
        return
    screen.say_accuracy(f"{found.data}: accuracy", found.as_dict())
    _say_known(screen, found.known)
    for sentence in _sentences(found):
        screen.say(sentence)
    screen.say()
    heading, *rows = found.class_rows
    print_table(screen.console, [heading, *((shortened(name), *values) for name, *values in rows)], numbers_from=1)
    _print_matrix(screen, found, "(rows: true class, columns: predicted class)")
    for true, predicted, count, _ in found.confused_most():
        screen.say(f"{shortened(true)} predicted as {shortened(predicted)}: {plural(count, 'image')}")
    if found.decision is not None:
        _print_matrix(screen, replace(found, predicted=found.decision["predicted"]), "with the least expected cost")


def _sentences(found: Evaluation) -> Iterator[str]:
    """Yield the scores over all classes in words."""
    names = {"macro_f1": "macro F1", "kappa": "Cohen's kappa", "mcc": "MCC"}.items()
    scores = (f"{text} {shown(getattr(found, n))} ({shown(as_pair(found.intervals[n]))})" for n, text in names)
    yield f"{', '.join(scores)}; 95% intervals in parentheses"
    if found.calibration is not None and found.probabilities is not None:
        top = "".join(f", top-{k} accuracy {share:.1%}" for k, share in found.top_k.items())
        yield f"loss {found.score.loss:.4f} ({found.calibration.nll:.4f} after calibration){top}"
    if curves := found.curves:
        area = f"average precision of {shortened(curves['class'])} {curves['average_precision']:.3f}"
        yield f"ROC AUC {curves['roc_auc']:.3f}, {area}"
    if found.calibration is not None:
        yield found.calibration.sentence
    if found.decision is not None:
        (low, high), before, after = (found.decision[key] for key in ("interval_95", "cost_before", "cost_after"))
        difference = f"difference {after - before:+.4g}, 95% interval {low:+.4g} to {high:+.4g}"
        yield f"least expected cost: {after:.4g} per image instead of {before:.4g} ({difference})"
        for least, name in sorted(zip(found.decision["threshold"] or (), found.names, strict=False))[:1]:
            yield f"predict {shortened(name)} from a probability of {least:.1%} on"


def _print_matrix(screen: Screen, found: Evaluation, title: str) -> None:
    if len(found.names) <= _MOST_COLUMNS:
        screen.say(f"\nconfusion matrix {title}")
        print_table(screen.console, _confusion_rows(found), numbers_from=1)


def _confusion_rows(found: Evaluation) -> list[tuple[str, ...]]:
    names = columns = [shortened(name) for name in found.names]
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
