"""Several runs -> one page that compares them: accuracies, paired differences, curves, and settings that differ."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.errors import ConfigError, DataError, without_way_out
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.recipe.keys import take_apart
from vitreous.tensor_file import parsing
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.stored import stored_score
from vitreous.use.html import markup
from vitreous.use.report.figures import draw_lines, evaluations
from vitreous.use.series.compare import compare
from vitreous.wording import show

MOST_RUNS = 12
_HEADER = ("run", "images", "accuracy", "95% interval", "", "difference", "95% interval", "verdict")


def write_comparison(runs: Sequence[Path], out: Path) -> None:
    """Compare finished runs with the one that has the highest accuracy.

    There are 2 to 12 runs. The numbers are written next to the page, with the suffix `.json`.

    Raises:
        ConfigError: Too many runs, or one of them twice.
        DamagedFileError: A file of a run was altered.
        SaveError: A file could not be written.
    """
    if not len({path.resolve() for path in runs}) == len(runs) <= MOST_RUNS:
        raise ConfigError(f"runs={len(runs)}: too many for a page, or one of them twice; give 2 to {MOST_RUNS} runs")
    folders = {f"{number}: {path.resolve().name}": RunFolder(path) for number, path in enumerate(runs, start=1)}
    numbers: dict[str, Any] = {"version": 1, "runs": {}, "differences": {}, "settings": {}}
    records, configs = {}, []
    for label, folder in folders.items():
        metrics = read_metadata(folder.model)["metrics"]
        split = scored_split(metrics)
        configs.append(take_apart(read_config(folder.config)))
        numbers["runs"][label] = stored_score(metrics[split]).as_dict() if split else {}
        with parsing(folder.records, "restore the file, or train again"):
            records[label] = read_records(folder.records)
    best = max(folders, key=lambda label: numbers["runs"][label].get("accuracy", -1.0))
    numbers["best"] = best
    for label in folders:
        try:
            numbers["differences"][label] = compare(folders[best].path, folders[label].path).as_dict()
        except DataError as error:  # they were tested on other images
            numbers["differences"][label] = {"error": without_way_out(error).partition(": ")[2]}
    rows = [(escape(label), *_row(numbers["runs"][label], numbers["differences"][label])) for label in folders]
    figures = [
        draw_lines(f"comparison-{q}", q, {label: evaluations(records[label], q, "average") for label in folders})
        for q in ("loss", "accuracy")
    ]
    settings = {key: [show(config[key]) for config in configs] for key in configs[0]}
    numbers["settings"] = {key: values for key, values in settings.items() if len(set(values)) > 1}
    parts = [
        f"<h2>Accuracy</h2><p>Differences to {escape(best)} are judged on the images that both were tested on. One is "
        "real if its interval does not contain 0; of 20 comparisons of equal runs, about one looks real.</p>",
        markup.table(_HEADER, rows, numbers_from=1),
        f'<h2>Validation</h2><div class="figures">{"".join(figures)}</div><h2>Settings that differ</h2>',
        markup.table(("key", *map(escape, folders)), [(k, *map(escape, v)) for k, v in numbers["settings"].items()]),
    ]
    atomic.write_json(out.with_suffix(".json"), numbers)
    atomic.write_text(out, markup.page(f"Comparison of {len(runs)} runs", parts))


def _row(score: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a run: its accuracy, and its difference to the best run."""
    if not score:
        return "0", "unknown", "", "", "", "", escape(found["error"])
    low, high = score["interval_95"]
    interval, bar = f"{low:.1%} to {high:.1%}", markup.bar(score["accuracy"], low, high)
    cells = f"{score['num_images']:,}", f"{score['accuracy']:.1%}", interval, bar
    if "error" in found or found["a"] == found["b"]:
        return (*cells, "", "", escape(found.get("error", "the best")))
    low, high = (100 * value for value in found["interval_95"])
    verdict = "not distinguishable" if found["better"] is None else "worse" if found["difference"] < 0 else "better"
    return (*cells, f"{100 * found['difference']:+.1f} points", f"{low:+.1f} to {high:+.1f}", verdict)
