"""`vitreous explain` -> pictures, a comparison of methods, a look into the model, a search for shortcuts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Assignments, Count, Switch, architecture_of
from vitreous.cli.screen import Screen, print_facts, print_json, print_table
from vitreous.errors import ConfigError, DamagedFileError, DecodeError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.reading import hub_names
from vitreous.model.weights.table import Hints
from vitreous.paths import expanded
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.use.explain.anatomy.anatomy import explain_model, place_of
from vitreous.use.explain.anatomy.captions import CAPTIONS
from vitreous.use.explain.check.checker import check_explanations
from vitreous.use.explain.check.faithfulness import read_last_check
from vitreous.use.explain.explainer import Explainer, methods_named
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.explain.pictures.files import folder_for, write_explanations
from vitreous.use.explain.shortcut_check import check_shortcuts, write_shortcuts
from vitreous.use.predict.inputs import list_images, unreadable_text
from vitreous.use.report.page import write_report
from vitreous.wording import plural, printable

_MOST_ROWS = 40
"""Rows of the table on the screen; explanations.json has all."""
_CAPTIONS = (
    "pixels changed: area under top-1 accuracy (black) and under the probability (deletion, insertion)",
    "patches changed: area between the curves of the logit, least minus most relevant first",
)


def explain(
    run: str,
    images: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    /,
    *,
    check: Switch = False,
    shows_model: Annotated[bool, Parameter(name="--model", negative="", show_default=False)] = False,
    method: Annotated[str | None, Parameter(help=f"{', '.join(METHODS)}, or all.")] = None,
    target: str | None = None,
    versus: str | None = None,
    out: Path | None = None,
    device: str = "auto",
    num_images: Annotated[Count | None, Parameter(name="--images")] = None,
    as_json: AsJson = False,
    weights: str = "auto",
    assignments: Assignments = (),
) -> None:
    """Show which parts of images raise the score of a class.

    Without images, the held-out images of the run are searched for shortcuts: marks or backgrounds by which the model
    recognizes a class.

    Args:
        run: A run folder, weights in any supported format, or hf://organization/name.
        images: Image files, or folders of them. With --check and --model, labeled images: a folder, table or named data
            set; default: those that the run held out.
        check: Compare how faithful methods are.
        shows_model: Show what the model has learned: filters, attention, tokens, features, what each part is worth.
        method: Name of a method, or all.
        target: Class to explain; default: the predicted class of each image.
        versus: Class to compare it with: what speaks for the target rather than for this class?
        out: Folder to create; default: the next unused one of explanations-1, explanations-2 and so on.
        device: auto, cpu, cuda, cuda:1 or mps.
        num_images: Number of images for --check; default: 20 to 200, fewer for larger models.
        as_json: Print explanations.json instead of a table.
        weights: For the checkpoint of a training run: raw, ema, auto, or the name of a part. What no tensor shows is
            set with options such as --architecture.num_heads 4.
        assignments: `--architecture.key value` options, as `main` rewrites them.
    """
    options = {"--check": check, "--model": shows_model, "--method": method, "--target": target, "--versus": versus,
               "--out": out, "--images": num_images, "--weights": None if weights == "auto" else weights}  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    given |= {f"--{key}": value for key, _, value in (assignment.partition("=") for assignment in assignments)}
    if check or shows_model or not images:
        _explain_model(Path(run), images, given, device, as_json)
        return
    if num_images is not None:
        raise ConfigError(f"--images={num_images}: is the number of images for --check; leave it out, or add --check")
    names = methods_named(method or DEFAULT)
    hints = Hints(architecture=architecture_of(assignments), weights=weights)
    with folder_for(out) as folder:
        _explain_images(run, images, names, (target, versus), folder, hints, device, as_json)


def _explain_images(
    run: str,
    images: Iterable[Path],
    methods: Sequence[str],
    classes: tuple[str | None, str | None],
    folder: Path,
    hints: Hints,
    device: str,
    as_json: bool,
) -> None:
    """Write pictures, and print a table; `classes` are the target and the class to compare it with."""
    files = list_images(images)
    with Screen(stderr=as_json) as screen:
        explainer = Explainer.load(run, hints=hints, device=resolve_device(device))
        screen.say_notes(f"{run} {note}" for note in explainer.notes)
        explained = _shown(screen, explainer.explain(files, methods, *classes), len(files), len(methods))
        content = write_explanations(folder, explained, {"model": run})
    found = content["explanations"]
    if as_json:
        print_json({"folder": str(folder), **content})
    else:
        _show(screen, found, folder)
        _say_last_check(screen, run, explainer.predictor.model)
    unreadable = [entry["unreadable"] for entry in found if entry["unreadable"]]
    if unreadable:
        raise DecodeError(unreadable_text(unreadable, len(files), "explained"))


def _explain_model(run: Path, images: Sequence[Path], given: Mapping[str, Any], device: str, as_json: bool) -> None:
    """Run the part of the command that looks at one set of labeled images as a whole."""
    _refuse_unused(images, given)
    data, method, out = str(images[0]) if images else None, given.get("--method"), given.get("--out")
    if "--check" in given:
        num_images = given.get("--images")
        check_methods(run, data, method=method, num_images=num_images, out=out, device=device, as_json=as_json)
    elif "--model" in given:
        show_model(run, data, out=out, device=device, as_json=as_json)
    else:
        show_shortcuts(run, method=method or DEFAULT, device=device, as_json=as_json)


def _refuse_unused(images: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Raise ConfigError for options and images that a command about the whole model does not use."""
    command = next((name for name in ("--check", "--model") if name in given), "vitreous explain RUN")
    used = {"--check": {"--method", "--images", "--out"}, "--model": {"--out"}}.get(command, {"--method"})
    unused = [name for name in given if name not in {command, *used}]
    if unused:
        way_out = "leave it out" if command.startswith("--") else "leave it out, or give images"
        name, value = unused[0], given[unused[0]]
        shown = name if value is True else f"{name}={printable(str(value))}"
        raise ConfigError(f"{shown}: has no use for {command}; {way_out}")
    if len(images) > 1:
        raise ConfigError(
            f"data={printable(str(images[1]))}: {command} takes one set of images; give one folder or table"
        )


def _shown(screen: Screen, explained: Iterable[Explanation], total: int, num_methods: int) -> Iterator[Explanation]:
    """Pass explanations on and show the progress."""
    done = 0.0
    for explanation in explained:
        done += 1 if explanation.unreadable else 1 / num_methods
        screen.listen("reading", {"what": "explaining", "done": round(done), "total": total})
        yield explanation


def _show(screen: Screen, found: list[dict[str, Any]], folder: Path) -> None:
    """Print a table of the explanations, and where their pictures are."""
    readable = [entry for entry in found if not entry["unreadable"]]
    several = len({entry["method"] for entry in readable}) > 1
    rows = [("image", "predicted", "probability", *(("method",) if several else ()), "explanation")]
    for entry in readable[:_MOST_ROWS]:
        label = (METHODS[entry["method"]].label,) if several else ()
        rows.append((entry["image"], entry["prediction"], f"{entry['probability']:.1%}", *label, entry["finding"]))
    if readable:
        print_table(screen.console, rows, numbers_from=len(rows[0]))
    if len(readable) > _MOST_ROWS:
        screen.say(f"and {plural(len(readable) - _MOST_ROWS, 'more row')}; explanations.json has all of them")
    pictures = plural(len(readable), "picture")
    screen.say(f"{pictures} in {folder}; start with sheet-1.png" if len(readable) > 1 else f"{pictures} in {folder}")


def check_methods(
    run: Path,
    data: str | None = None,
    *,
    method: str | None = None,
    num_images: int | None = None,
    out: Path | None = None,
    device: str = "auto",
    as_json: bool = False,
) -> None:
    """Compare how faithful methods are, and write `faithfulness.json` and `curves.png`; see `check_explanations`.

    Without `out`, the files go to the run folder. `method` may also be `all`.
    """
    folder = expanded(out or run)
    if out is None and (folder.is_file() or hub_names.name_in(run) is not None):
        where = f"run={hub_names.shown(run)}: is a model without a run folder"
        raise ConfigError(f"{where}, so there is no folder for the results; add --out FOLDER")
    names = None if method is None else methods_named(method)
    with Screen(stderr=as_json) as screen:
        on, listen = resolve_device(device), screen.listen
        found = check_explanations(run, data, methods=names, num_images=num_images, device=on, listener=listen)
    files = found.save(folder)
    if as_json:
        print_json(found.as_dict())
        return
    for caption, rows in zip(_CAPTIONS, found.tables(), strict=True):
        screen.say(f"{caption}\n", style="dim")
        print_table(screen.console, rows, numbers_from=1)
        screen.say()
    screen.say("mean ± half of the 95% interval; * best method; ↓ lower is better, ↑ higher is better", style="dim")
    screen.say_notes((*found.notes, *found.warnings))
    verdict, certainty = found.sentences
    screen.say(verdict, style="bold green")
    screen.say(certainty)
    screen.say(f"written: {', '.join(map(str, files))}")


def show_model(
    run: Path, data: str | None = None, *, out: Path | None = None, device: str = "auto", as_json: bool = False
) -> None:
    """Look into a model, print what was found, and write a page; see `explain_model` and `ModelAnatomy.save`."""
    place_of(run, out)
    with Screen(stderr=as_json) as screen:
        found = explain_model(run, data, device=resolve_device(device), listener=screen.listen)
        page = found.save(out)
        folder = RunFolder(expanded(run))
        if folder.anatomy.is_file() and folder.report.is_file():
            write_report(folder)  # with a link to the page
    if as_json:
        print_json(found.as_dict())
        return
    screen.say(found.data)
    print_facts(screen, ((CAPTIONS[part.name].title, part.finding) for part in found.parts))
    screen.say(f"\n{page}", style="bold")


def show_shortcuts(run: Path, *, method: str = DEFAULT, device: str = "auto", as_json: bool = False) -> None:
    """Check the held-out images of a run for shortcuts, and add what was found to the run folder and its report."""
    folder = RunFolder(expanded(run))
    with Screen(stderr=as_json) as screen:
        found = check_shortcuts(folder.path, method=method, device=resolve_device(device), listener=screen.listen)
        write_shortcuts(folder, found)
        write_report(folder)
    if as_json:
        print_json(found.as_dict())
        return
    num_found = len(found.shortcuts.found)
    for number, sentence in enumerate(found.sentences):
        screen.say(sentence, style="bold yellow" if number < num_found else None)
    if num_found:
        screen.say(f"the images behind each finding are listed in {folder.shortcuts}")
    screen.say(f"where the relevance of each class lies: {folder.shortcuts_picture}")


def _say_last_check(screen: Screen, run: str, model: VisionTransformer) -> None:
    """Show which method was the most faithful in the last check of this run, if there was one."""
    try:
        last = read_last_check(expanded(run), model)
    except DamagedFileError as error:
        screen.say_notes([str(error)])
        return
    if last is not None:
        screen.say_notes([last.sentence])
