"""`vitreous report` -> the report of a run, written again; or a page that compares several runs."""

from pathlib import Path

from vitreous.cli.options import Switch
from vitreous.cli.screen import Screen
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.training.folder.access import open_run_folder
from vitreous.use.predict.predictor import find_model
from vitreous.use.predict.table import check_table_path
from vitreous.use.report.comparison import write_comparison
from vitreous.use.report.page import write_report


def report(
    run: Path,
    /,
    *others: Path,
    no_photos: Switch = False,
    out: Path | None = None,
) -> None:
    """Write the report of a run again, or a page that compares several runs.

    Args:
        run: Run folder.
        others: More run folders, to compare them.
        no_photos: Leave out photos, also when the report is updated later. A comparison has none.
        out: The page to write; default: report.html in the run folder, or comparison.html here for several runs. Its
            numbers are next to it, with the suffix .json.
    """
    folders = [open_run_folder(find_model(expanded(path)).parent) for path in (run, *others)]
    page = expanded(out) if out is not None else Path("comparison.html") if others else folders[0].report
    check_table_path(page, (".html", ".htm"), "report.html")
    numbers = page.with_suffix(".json")
    if out is not None and numbers.exists() and not page.exists():
        raise ConfigError(f"out={page}: its numbers would replace {numbers}; choose another name")
    if others:
        write_comparison([folder.path for folder in folders], page)
    else:
        write_report(folders[0], no_photos=no_photos, out=page)
    Screen().say(f"{page} ({page.stat().st_size / 1e6:.1f} MB), numbers in {numbers}")
