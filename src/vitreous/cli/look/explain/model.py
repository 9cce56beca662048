"""`vitreous explain RUN --model` -> what the model has learned: a page with pictures, the findings on the screen."""

from pathlib import Path

from vitreous.cli.screen import Screen, print_facts, print_json
from vitreous.paths import expanded
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.use.explain.anatomy.anatomy import explain_model as explain
from vitreous.use.explain.anatomy.anatomy import place_of
from vitreous.use.explain.anatomy.captions import CAPTIONS
from vitreous.use.report.page import write_report


def explain_model(
    run: Path, data: str | None = None, *, out: Path | None = None, device: str = "auto", as_json: bool = False
) -> None:
    """Look into a model, print what was found, and write a page; see `explain_model` and `ModelAnatomy.save`."""
    place_of(run, out)
    with Screen(stderr=as_json) as screen:
        found = explain(run, data, device=resolve_device(device), listener=screen.listen)
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
