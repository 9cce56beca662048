"""`vitreous explain RUN` without images -> whether classes are recognized by a mark or the background."""

from pathlib import Path

from vitreous.cli.screen import Screen, print_json
from vitreous.paths import expanded
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.use.explain.methods import DEFAULT
from vitreous.use.explain.shortcut_check import check_shortcuts, write_shortcuts
from vitreous.use.report.page import write_report


def explain_shortcuts(run: Path, *, method: str = DEFAULT, device: str = "auto", as_json: bool = False) -> None:
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
