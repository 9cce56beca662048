"""`vitreous explain RUN --check` -> which method explains the model most faithfully."""

from pathlib import Path

from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError, DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.reading import hub_names
from vitreous.paths import expanded
from vitreous.training.machine.device import resolve_device
from vitreous.use.explain.check.checker import check_explanations
from vitreous.use.explain.check.last_check import read_last_check
from vitreous.use.explain.methods import METHODS

_CAPTIONS = (
    "pixels changed: area under top-1 accuracy (black) and under the probability (deletion, insertion)",
    "patches changed: area between the curves of the logit, least minus most relevant first",
)


def check(
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
    names = None if method is None else list(METHODS) if method == "all" else [method]
    with Screen(stderr=as_json) as screen:
        found = check_explanations(
            run,
            data,
            methods=names,
            num_images=num_images,
            device=resolve_device(device),
            listener=screen.listen,
        )
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


def say_last_check(screen: Screen, run: str, model: VisionTransformer) -> None:
    """Show which method was the most faithful in the last check of this run, if there was one."""
    try:
        last = read_last_check(expanded(run), model)
    except DamagedFileError as error:
        screen.say_notes([str(error)])
        return
    if last is not None:
        screen.say_notes([last.sentence])
