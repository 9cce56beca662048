"""Summary -> sentences and a table of it; and `summary.json` and `summary.md` in the folder of the series."""

import json

from vitreous import atomic
from vitreous.data.sources.source import as_text
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.use.report.page import write_report
from vitreous.use.series.summary import Spread, Summary, summarise_series


def complete(run: RunFolder) -> None:
    """Write the report of a finished run of a series, where it has none, and the summary anew. Raises as they do."""
    if not run.report.exists():
        write_report(run)
    write_summary(SeriesFolder(run.path.parent))


def write_summary(folder: SeriesFolder) -> Summary:
    """Write what the runs that are finished say together. Raises as `summarise_series`, SaveError where it cannot."""
    summary = summarise_series(folder)
    atomic.write_text(folder.summary, json.dumps(summary.as_dict(), indent=2, ensure_ascii=False) + "\n")
    atomic.write_text(folder.page, as_text(_page(summary)))
    return summary


def table(summary: Summary) -> list[tuple[str, ...]]:
    """A row for each finished run below a row of headings."""
    rows = [
        (row.name, f"{row.score.num_images:,}", f"{row.score.num_correct:,}", *_accuracy(row.score))
        for row in summary.rows
    ]
    return [("run", "images", "right", "accuracy", "95 % interval"), *rows]


def sentences(summary: Summary) -> list[str]:
    """What the runs say together, most important first."""
    if not summary.rows:
        return ["accuracy unknown: no run is finished, or no images were held out"]
    found = []
    missing = summary.num_planned - len(summary.rows)
    if missing:
        found.append(f"{missing} of {summary.num_planned} runs have no accuracy")
    for seed, score in summary.by_seed().items() if summary.num_folds else ():
        accuracy, interval = _accuracy(score)
        found.append(
            f"accuracy over all {summary.num_folds} folds{f' with seed {seed}' if _has_seeds(summary) else ''}: "
            f"{accuracy} ({score.num_correct:,} of {score.num_images:,} images right, each tested once by a model that "
            f"did not train on it; 95 % interval {interval})"
        )
    if summary.num_folds and len(summary.rows) > 1 and not _has_seeds(summary):
        found.append(f"the folds: {_spread(summary.over_runs())}")
    over_seeds = summary.over_seeds()
    if over_seeds is not None:
        spread, (low, high) = over_seeds
        found.append(f"accuracy over {len(summary.by_seed())} seeds: {_spread(spread)}")
        found.append(
            f"95 % interval of the mean over seeds: {100 * low:.1f} to {100 * high:.1f} %: what other seeds would give "
            f"on these images; what other images would give is the wider the fewer images a run is tested on"
        )
    if any(row.split == "val" for row in summary.rows):
        found.append("no test images: these are validation images, on which weights were chosen, so accuracy flatters")
    return found


def _page(summary: Summary) -> str:
    heading, *rows = table(summary)
    lines = [
        f"# Series {summary.name}: {summary.data}",
        "",
        *(f"- {sentence}" for sentence in sentences(summary)),
        "",
        f"| {' | '.join(heading)} |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Each run has its own folder with `report.html`, `plan.md` and `predictions.csv`. The interval of one run "
        "tells how much other images of the same kind could have changed its accuracy.",
        "",
    ]
    return "\n".join(lines)


def _has_seeds(summary: Summary) -> bool:
    return len({row.seed for row in summary.rows}) > 1


def _accuracy(score: Score) -> tuple[str, str]:
    low, high = score.interval
    return f"{100 * score.accuracy:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"


def _spread(found: Spread) -> str:
    return (
        f"{100 * found.mean:.1f} ± {100 * found.std:.1f} % (mean ± standard deviation; "
        f"{100 * found.low:.1f} to {100 * found.high:.1f} %)"
    )
