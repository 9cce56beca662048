"""`vitreous explain` -> pictures of which parts of images raise the score of a class, and a table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vitreous.cli.look.explain.check import check as check_methods
from vitreous.cli.look.explain.check import say_last_check
from vitreous.cli.look.explain.model import explain_model
from vitreous.cli.look.explain.shortcuts import explain_shortcuts
from vitreous.cli.options import AsJson, Assignments, Count, Switch, architecture_of
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError, DecodeError
from vitreous.model.weights.table import Hints
from vitreous.printable import printable
from vitreous.training.machine.device import resolve_device
from vitreous.use.explain.explainer import Explainer, methods_named
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.explain.pictures.files import folder_for, write_explanations
from vitreous.use.predict.inputs import list_images, unreadable_text
from vitreous.wording import plural

_MOST_ROWS = 40
"""Rows of the table on the screen; explanations.json has all."""


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
        say_last_check(screen, run, explainer.predictor.model)
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
        explain_model(run, data, out=out, device=device, as_json=as_json)
    else:
        explain_shortcuts(run, method=method or DEFAULT, device=device, as_json=as_json)


def _refuse_unused(images: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Raise ConfigError for options and images that a command about the whole model does not use."""
    command = next((name for name in ("--check", "--model") if name in given), "vitreous explain RUN")
    used = {"--check": {"--method", "--images", "--out"}, "--model": {"--out"}}.get(command, {"--method"})
    unused = [name for name in given if name not in {command, *used}]
    if unused:
        way_out = "leave it out" if command.startswith("--") else "leave it out, or give images"
        raise ConfigError(f"{unused[0]}={printable(str(given[unused[0]]))}: has no use for {command}; {way_out}")
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
