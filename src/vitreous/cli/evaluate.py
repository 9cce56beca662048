"""`vitreous evaluate` -> how good a model is."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.numbers import whole_number
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.training.folder.run_folder import RunFolder, open_run_folder
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.evaluator import evaluate as evaluate_run
from vitreous.use.evaluate.images.slices import slices_of_run, worse
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.paired import points
from vitreous.use.evaluate.robustness.robustness import Robustness, measure_robustness
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets, rejecting_text, sets_text, usual
from vitreous.use.report.page import write_report
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
    robustness: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    tta: Annotated[int, Parameter(converter=whole_number)] = 1,
    root: str | None = None,
    slices: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    device: str = "auto",
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Score a model on the images that its run held out, or on other labeled images.

    Args:
        run: Run folder; with DATA also a model.safetensors file.
        data: A folder, table or named data set; its test split if it has one, else all its images.
        robustness: Measure instead how much accuracy noise, blur, weather, light, position and resizing cost.
        tta: Also measure what averaging over this many views of each image gains (test-time augmentation).
        root: The folder that a table's paths are relative to; default: the table's own.
        slices: Also find groups of the held-out images that are classified worse: by size, brightness, sharpness, file
            type, folder, camera and time.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: Print one JSON document instead of tables.
    """
    if slices and data is not None:
        raise ConfigError(f"slices={data}: are groups of the images that the run held out; leave the data out")
    if robustness and tta != 1:
        raise ConfigError(f"tta={tta}: has no use for --robustness, which shows one view; leave one of them out")
    found: Evaluation | LabelEvaluation | Robustness
    with Screen(stderr=as_json) as screen:
        where, listener, folder = resolve_device(device), screen.listen, RunFolder(expanded(run))
        if robustness:
            found = measure_robustness(run, data, root=root, device=where, listener=listener)
            if found.is_own and folder.model.is_file():  # not the best model so far of a run that goes on
                found.save(folder.path)
                write_report(folder)
        else:
            found = evaluate_run(run, data, root=root, num_views=tta, device=where, listener=listener)
        groups = slices_of_run(open_run_folder(folder.path), listener) if slices else []
    if isinstance(found, Robustness):
        if as_json:
            print_json(found.as_dict())
            return
        print_table(screen.console, found.table(), numbers_from=3)
        screen.say("\n".join(found.sentences))
        return
    outputs = outputs_of_run(folder) if data is None and folder.model.is_file() else {}
    sets, rejecting = measure_sets(outputs), measure_rejecting(outputs)
    if as_json:
        extra = {"slices": [group._asdict() for group in groups]} if slices else {}
        print_json(found.as_dict() | {"sets": sets, "rejecting": rejecting} | extra)
        return
    if isinstance(found, LabelEvaluation):
        _say_labels(screen, found)
        return
    screen.say_accuracy(f"{found.data}: accuracy", found.score.as_dict())
    _say_details(screen, found)
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
    none = ["no group of images is classified significantly worse than the others"] * slices
    for sentence in [str(group) for group in worse(groups)] or none:
        screen.say(sentence)


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
    _say_details(screen, found)
    screen.say()
    print_table(screen.console, found.table(), numbers_from=1)


def _say_details(screen: Screen, found: Evaluation | LabelEvaluation) -> None:
    if found.known is not None and found.known.sentence:
        screen.say(f"note: {found.known.sentence}", style="yellow")
    if found.views is not None:
        num_views, accuracy, gain = found.views.values()
        cost = f"{num_views} forward passes per image instead of 1"
        screen.say(f"averaged over {num_views} views: accuracy {accuracy:.1%}, a gain of {points(gain)}; {cost}")
