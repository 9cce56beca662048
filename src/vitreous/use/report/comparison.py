"""Several runs -> one page that compares them: accuracies, paired differences, curves, and settings that differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.errors import ConfigError, DataError
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.recipe.keys import take_apart
from vitreous.recipe.plan import show
from vitreous.tensor_file import parsing
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use import markup
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.stored import stored_score
from vitreous.use.predict.predictor import find_model
from vitreous.use.report.figures import draw_lines, evaluations
from vitreous.use.series.compare import Comparison, compare

MOST_RUNS = 12
_LETTERS = "ABCDEFGHIJKL"


def write_comparison(runs: Sequence[Path], out: Path) -> None:
    """Compare finished runs; each with the one of the highest accuracy, on the images that both were tested on.

    Args:
        runs: Run folders, 2 to `MOST_RUNS`.
        out: The page; its numbers are written next to it, with the suffix `.json`.

    Raises:
        ConfigError: Too many runs, or one of them twice.
        NotARunError: One of them is not a finished run.
        DamagedFileError: A file of a run was altered.
        SaveError: A file could not be written.
    """
    if len(runs) > MOST_RUNS or len({path.resolve() for path in runs}) < len(runs):
        wrong = f"more than {MOST_RUNS}" if len(runs) > MOST_RUNS else "one of them is given twice"
        raise ConfigError(f"runs={len(runs)}: {wrong}; give up to {MOST_RUNS} different runs")
    folders = {
        f"{letter}: {path.resolve().name}": RunFolder(path) for letter, path in zip(_LETTERS, runs, strict=False)
    }
    scores = {label: _score(folder) for label, folder in folders.items()}
    best = max(scores, key=lambda label: scores[label].get("accuracy", -1.0))
    compared = {label: _compared(folders[best], folder) for label, folder in folders.items() if label != best}
    differing = _differing({label: take_apart(read_config(folder.config)) for label, folder in folders.items()})
    columns = ("run", "images", "accuracy", "95% interval")
    settings = [(f"<code>{key}</code>", *map(escape, values)) for key, values in differing]
    parts = [
        "<h2>Accuracy</h2>",
        markup.table(columns, _accuracies(scores), numbers_from=1),
        f"<h2>Difference to {escape(best)}</h2>",
        "<p>Both are judged on the same images. A difference is real if its interval does not contain 0; of 20 "
        "comparisons of equal runs, about one looks real.</p>",
        markup.table(("run", "images", "difference", *columns[3:], "verdict"), _differences(compared), numbers_from=1),
        '<h2>Validation</h2><div class="figures">',
        *_curves(folders),
        "</div><h2>Settings that differ</h2>",
        markup.table(("key", *map(escape, folders)), settings),
    ]
    differences = {label: f if isinstance(f, str) else f.as_dict() for label, f in compared.items()}
    numbers = {"version": 1, "runs": scores, "best": best, "differences": differences, "settings": dict(differing)}
    atomic.write_text(out.with_suffix(".json"), json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    atomic.write_text(out, markup.page(f"Comparison of {len(runs)} runs", parts))


def _score(folder: RunFolder) -> Mapping[str, Any]:
    """Return the stored score of a run; empty if it has no held-out images."""
    metrics = read_metadata(find_model(folder.path))["metrics"]
    split = scored_split(metrics)
    return {} if split is None else {"split": split, **stored_score(metrics[split]).as_dict()}


def _compared(best: RunFolder, other: RunFolder) -> Comparison | str:
    try:
        return compare(best.path, other.path)
    except DataError as error:  # they were tested on other images
        return str(error).partition("; ")[0].partition(": ")[2]


def _accuracies(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for label, found in scores.items():
        if found:
            low, high = found["interval_95"]
            interval = f"{low:.1%} to {high:.1%} {markup.bar(found['accuracy'], low, high)}"
            yield escape(label), f"{found['num_images']:,} {found['split']}", f"{found['accuracy']:.1%}", interval
        else:
            yield escape(label), "0", "–", "–"


def _differences(compared: Mapping[str, Comparison | str]) -> Iterator[tuple[str, ...]]:
    for label, found in compared.items():
        if isinstance(found, str):
            yield escape(label), "", "", "", escape(found)
            continue
        low, high = (100 * value for value in found.interval_95)
        verdict = "not distinguishable" if found.better is None else "worse" if found.difference < 0 else "better"
        difference = f"{100 * found.difference:+.1f} points"
        yield escape(label), f"{found.num_images:,}", difference, f"{low:+.1f} to {high:+.1f}", verdict


def _curves(folders: Mapping[str, RunFolder]) -> Iterator[str]:
    for quantity in ("loss", "accuracy"):
        lines = {}
        for label, folder in folders.items():
            with parsing(folder.records, "restore the file, or train again"):
                lines[label] = evaluations(read_records(folder.records), quantity, "average")
        yield draw_lines(f"comparison-{quantity}", quantity, lines, is_share=quantity == "accuracy")


def _differing(configs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return each key whose value is not the same in all runs, with the values."""
    keys = next(iter(configs.values()))
    rows = [(key, [show(config[key]) for config in configs.values()]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
