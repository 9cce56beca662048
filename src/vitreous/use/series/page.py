"""Summary -> sentences and a table, and the files `summary.json` and `summary.md` of a series."""

from collections.abc import Iterator

from vitreous import atomic
from vitreous.data.sources.source import as_text
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.multilabel import LabelScore
from vitreous.training.folder.run_folder import SeriesFolder
from vitreous.use.evaluate.headline import baseline_text, never_predicted_text
from vitreous.use.series.summary import Spread, Summary, pool, summarize_series
from vitreous.wording import plural


def write_summary(folder: SeriesFolder) -> Summary:
    """Write `summary.json` and `summary.md` from the runs that are finished.

    Raises:
        NotARunError: The folder is not a series.
        DamagedFileError: A file of the series was altered.
        SaveError: A file could not be written.
    """
    summary = summarize_series(folder)
    atomic.write_json(folder.summary, summary.as_dict(), indent=2)
    atomic.write_text(folder.page, as_text(as_markdown(summary)))
    return summary


def table(summary: Summary) -> list[tuple[str, ...]]:
    """Return one row per finished run, below a row of headings."""
    rows = [
        (row.name, f"{row.score.num_images:,}", *_precision(row.score), f"{row.score.num_correct:,}",
         *_accuracy(row.score))
        for row in summary.rows
    ]  # fmt: skip
    precision = ("mAP", "95% interval") if summary.is_multilabel else ()
    return [("run", "images", *precision, "correct", "accuracy", "95% interval"), *rows]


def sentences(summary: Summary) -> list[str]:
    """Return the results of the series as sentences, most important first."""
    if not summary.rows:
        return ["accuracy unknown: no run is finished, or the runs have no test images"]
    result = []
    missing = summary.num_planned - len(summary.rows)
    if missing:
        result.append(
            f"{missing} of {plural(summary.num_planned, 'run')} {'has' if missing == 1 else 'have'} no accuracy"
        )
    if summary.is_multilabel:
        result += _precision_sentences(summary)
    for seed, score in summary.by_seed().items() if summary.num_folds else ():
        accuracy, interval = _accuracy(score)
        result.append(
            f"accuracy over all {summary.num_folds} folds{f' with seed {seed}' if _has_seeds(summary) else ''}: "
            f"{accuracy} ({score.num_correct:,} of {plural(score.num_images, 'image')} correct, each tested once by a "
            f"model that was not trained on it; 95% interval {interval})"
        )
    if summary.num_folds and len(summary.rows) > 1 and not _has_seeds(summary):
        result.append(f"accuracy of single folds: {_spread(summary.over_runs())}")
    over_seeds = summary.over_seeds()
    if over_seeds is not None:
        found, (low, high) = over_seeds
        result.append(f"accuracy over {len(summary.by_seed())} seeds: {_spread(found)}")
        result.append(
            f"95% interval of the mean over seeds: {100 * low:.1f}% to {100 * high:.1f}%; it reflects other seeds on "
            "the same images, not other images"
        )
    if summary.by_seed():
        overall = pool(summary.by_seed().values()).as_dict()
        result += filter(None, (baseline_text(overall), never_predicted_text(overall)))
    if any(row.chosen_on_it for row in summary.rows):
        result.append(
            "no test images: accuracy is on the validation images that chose the weights, so it is optimistic"
        )
    return result


def as_markdown(summary: Summary) -> str:
    """Return the results as a page in Markdown."""
    heading, *rows = table(summary)
    lines = [
        f"# Series {summary.name}: {summary.data}",
        "",
        *(f"- {sentence}" for sentence in sentences(summary)),
        "",
        f"| {' | '.join(heading)} |",
        "|---" + "|---:" * (len(heading) - 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Each run has its own folder with `report.html`, `plan.md` and `predictions.csv`. The interval of a run shows "
        "how much its accuracy could change with other images of the same kind.",
        "",
    ]
    return "\n".join(lines)


def _precision_sentences(summary: Summary) -> Iterator[str]:
    """Yield the mean average precision, which matters most if images may have several labels."""
    metric = "mean_average_precision"
    over_seeds = summary.over_seeds(metric)
    if over_seeds is not None:
        found, (low, high) = over_seeds
        interval = f"95% interval of the mean over seeds: {low:.3f} to {high:.3f}"
        yield f"mAP over {len(summary.by_seed())} seeds: {_spread(found, '.3f')}; {interval}"
    elif len(summary.rows) > 1:
        yield f"mAP of single folds: {_spread(summary.over_runs(metric), '.3f')}"


def _has_seeds(summary: Summary) -> bool:
    return len({row.seed for row in summary.rows}) > 1


def _accuracy(score: Score) -> tuple[str, str]:
    low, high = score.interval
    return f"{100 * score.accuracy:.1f}%", f"{100 * low:.1f}% to {100 * high:.1f}%"


def _precision(score: Score) -> tuple[str, ...]:
    if not isinstance(score, LabelScore):
        return ()
    interval = "–" if score.map_interval is None else "{:.3f} to {:.3f}".format(*score.map_interval)
    return f"{score.mean_average_precision:.3f}", interval


def _spread(spread: Spread, form: str = ".1%") -> str:
    mean, std, low, high = (format(value, form) for value in (spread.mean, spread.std, spread.low, spread.high))
    return f"{mean} ± {std} (mean ± standard deviation; {low} to {high})"
