"""`vitreous evaluate` -> how good a model is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Count, Switch
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.training.folder.access import open_run_folder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.evaluation import Evaluation, shown
from vitreous.use.evaluate.evaluator import evaluate as evaluate_run
from vitreous.use.evaluate.images.slices import slices_of_run, worse
from vitreous.use.evaluate.metrics.scores import as_pair
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.paired import points
from vitreous.use.evaluate.robustness.robustness import measure_robustness
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets, rejecting_text, sets_text, usual
from vitreous.use.report.page import write_report
from vitreous.wording import plural, shortened

_MOST_COLUMNS = 14
"""Largest number of classes for which the confusion matrix fits a terminal; `--json` includes it for up to 1,000."""
_MATRIX_WIDTH = 70
"""Total length of the class names, in characters, above which the columns of the confusion matrix are numbered."""


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `vitreous evaluate`.

    Attributes:
        robustness: Measure instead how much accuracy noise, blur, weather, light, position and resizing cost.
        slices: Also find groups of the held-out images that are classified worse: by size, brightness, sharpness, file
            type, folder, camera and time.
        cost: Cost of a mistake, such as defect:good=20 for a defect that is predicted as good; with several labels per
            image, defect:miss=20 or defect:false-alarm=2; may be repeated. Every other mistake costs 1. Shows what the
            decision with the least expected cost changes.
        tta: Also measure what averaging over this many views of each image gains (test-time augmentation).
        root: The folder of the images of a table or an export; default: that of the file.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: Print one JSON document instead of tables.
    """

    robustness: Switch = False
    slices: Switch = False
    cost: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    tta: Count = 1
    root: str | None = None
    device: str = "auto"
    as_json: AsJson = False


def evaluate(run: Path, data: str | None = None, /, *, options: EvaluateOptions = EvaluateOptions()) -> None:
    """Score a model on the images that its run held out, or on other labeled images; or predictions of any tool.

    Args:
        run: Run folder; with DATA also a model.safetensors file or hf://organization/name. Or a table with the columns
            `true` and `predicted`, and optionally `probability` or `p_CLASS` for each class.
        data: A folder, table or named data set; its test split if it has one, else all its images.
        options: All other options.
    """
    if options.slices and data is not None:
        raise ConfigError(f"slices={data}: are groups of the images that the run held out; leave the data out")
    if options.robustness:
        _measure_robustness(run, data, options)
        return
    folder = RunFolder(expanded(run))
    with Screen(stderr=options.as_json) as screen:
        found = evaluate_run(
            run, data, root=options.root, num_views=options.tta, device=resolve_device(options.device),
            cost=options.cost, listener=screen.listen,
        )  # fmt: skip
        groups = slices_of_run(open_run_folder(folder.path), screen.listen) if options.slices else None
    outputs = outputs_of_run(folder) if data is None and folder.model.is_file() else {}
    sets, rejecting = measure_sets(outputs), measure_rejecting(outputs)
    if options.as_json:
        extra = {} if groups is None else {"slices": [group._asdict() for group in groups]}
        print_json(found.as_dict() | {"sets": sets, "rejecting": rejecting} | extra)
        return
    if isinstance(found, LabelEvaluation):
        _say_labels(screen, found)
    else:
        _say_classes(screen, found, [*map(sets_text, usual(sets)), *([rejecting_text(rejecting)] if rejecting else [])])
    none = "no group of images is classified significantly worse than the others"
    for sentence in [] if groups is None else [str(group) for group in worse(groups)] or [none]:
        screen.say(sentence)


def _measure_robustness(run: Path, data: str | None, options: EvaluateOptions) -> None:
    """Measure and show robustness; that of the run's own images becomes part of its report."""
    for name, value, unset in (("tta", options.tta, 1), ("cost", options.cost, ()), ("slices", options.slices, False)):
        if value != unset:
            raise ConfigError(f"{name}={value}: has no use for --robustness, which measures other things; omit one")
    folder = RunFolder(expanded(run))
    with Screen(stderr=options.as_json) as screen:
        found = measure_robustness(
            run, data, root=options.root, device=resolve_device(options.device), listener=screen.listen
        )
        if found.is_own and folder.model.is_file():  # not the best model so far of a run that goes on
            found.save(folder.path)
            write_report(folder)
    if options.as_json:
        print_json(found.as_dict())
        return
    print_table(screen.console, found.table(), numbers_from=3)
    screen.say("\n".join(found.sentences))


def _say_classes(screen: Screen, found: Evaluation, decisions: Sequence[str]) -> None:
    """Print the scores of a model that predicts one class; `decisions` are sentences on sets and rejecting."""
    screen.say_accuracy(f"{found.data}: accuracy", found.as_dict())
    _say_details(screen, found)
    for sentence in (*_sentences(found), *decisions):
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
        after = f" ({found.calibration.nll:.4f} after calibration)"
        is_same = abs(found.calibration.nll - found.score.loss) < 1e-9  # as for a table of predictions
        yield f"loss {found.score.loss:.4f}{'' if is_same else after}{top}"
    if curves := found.curves:
        area = f"average precision of {shortened(curves['class'])} {curves['average_precision']:.3f}"
        yield f"ROC AUC {curves['roc_auc']:.3f}, {area}"
    if found.calibration is not None:
        yield found.calibration.sentence
    if found.decision is not None:
        yield _cost_text(found.decision)
        for least, name in sorted(zip(found.decision["threshold"] or (), found.names, strict=False))[:1]:
            yield f"predict {shortened(name)} from a probability of {least:.1%} on"


def _cost_text(decision: Mapping[str, Any]) -> str:
    (low, high), before, after = (decision[key] for key in ("interval_95", "cost_before", "cost_after"))
    difference = f"difference {after - before:+.4g}, 95% interval {low:+.4g} to {high:+.4g}"
    return f"least expected cost: {after:.4g} per image instead of {before:.4g} ({difference})"


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
    _say_details(screen, found)
    screen.say()
    print_table(screen.console, found.table(), numbers_from=1)
    if found.decision is not None:
        screen.say(f"\n{_cost_text(found.decision)}, with these thresholds:")
        print_table(screen.console, replace(found, classes=found.decision["classes"]).table(), numbers_from=1)


def _say_details(screen: Screen, found: Evaluation | LabelEvaluation) -> None:
    if found.known is not None and found.known.sentence:
        screen.say_notes([found.known.sentence])
    if found.views is not None:
        num_views, accuracy, gain = found.views.values()
        cost = f"{num_views} forward passes per image instead of 1"
        screen.say(f"averaged over {num_views} views: accuracy {accuracy:.1%}, a gain of {points(gain)}; {cost}")
