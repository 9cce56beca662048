"""Run folder -> `report.html` in it."""

import csv
from collections.abc import Iterable, Sequence
from html import escape
from shlex import quote
from typing import Any

from vitreous import atomic
from vitreous.model.weights import read_metadata
from vitreous.recipe.plan import show
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.report import markup
from vitreous.use.report.figures import draw_confusion, draw_curves


def write_report(folder: RunFolder) -> None:
    """Write the page of a finished run. Raises NotARunError for an unfinished one, SaveError where it cannot."""
    records = read_records(folder.records)
    atomic.write_text(folder.report, _page(folder, records, _held_out(folder)))


def _held_out(folder: RunFolder) -> Evaluation | None:
    """What the run itself wrote of its held-out images; nothing is computed again."""
    metadata = read_metadata(folder.model)
    split = next((name for name in ("test", "val") if name in metadata["metrics"]), None)
    if split is None:
        return None
    with folder.predictions.open(encoding="utf-8", newline="") as file:
        rows = [(row["label"], row["called"]) for row in csv.DictReader(file)]
    classes, metrics = tuple(metadata["classes"]), metadata["metrics"][split]
    numbers = {name: number for number, name in enumerate(classes)}
    true, called = zip(*((numbers[label], numbers[name]) for label, name in rows), strict=True)
    found = Score(metrics["num_images"], metrics["num_correct"], metrics["loss"])
    return count_classes(f"the {split} images of {metadata['data']}", found, true, called, classes)


def _page(folder: RunFolder, records: Sequence[dict[str, Any]], evaluation: Evaluation | None) -> str:
    plan, end, data = _last(records, "plan"), _last(records, "end"), _last(records, "data")
    title, run = folder.path.resolve().name, quote(str(folder.path))
    return markup.page(
        title,
        [
            *_headline(evaluation),
            markup.sentences([*plan.get("summary", ()), _training(plan, end)]),
            "<h2>How it learned</h2>",
            draw_curves(records),
            *_classes(evaluation),
            "<h2>What was chosen and why</h2>",
            markup.table(
                ("key", "value", "why"),
                [(f"<code>{escape(c['key'])}</code>", escape(show(_tupled(c["value"]))), escape(c["reason"]))
                 for c in plan.get("choices", ())],
            ),
            "<h2>Worth knowing</h2>",
            markup.sentences([*plan.get("notes", ()), *data.get("findings", ()), *_trouble(records)])
            or "<p>Nothing.</p>",
            _skipped(data.get("skipped", ())),
            f"<h2>Next</h2><pre>vitreous predict {escape(run)} IMAGE\n"
            f"vitreous evaluate {escape(run)} DATA</pre>",
        ],
    )  # fmt: skip


def _training(plan: dict[str, Any], end: dict[str, Any]) -> str:
    chosen = {"trained": "the weights of the last step", "average": "the running average of the weights",
              "best": "the weights of the best evaluation on the way"}  # fmt: skip
    kept = chosen.get(end.get("weights", ""), "the weights")
    why = ", which did better on the validation images" if "val" in end.get("metrics", {}) else ""
    return (
        f"recipe {plan.get('recipe', '')}: {end.get('step', 0):,} steps in {end.get('elapsed_s', 0):,.0f} s; "
        f"kept {kept}{why}"
    )


def _headline(evaluation: Evaluation | None) -> Iterable[str]:
    if evaluation is None:
        return ["<p>No images were held out, so its accuracy is unknown.</p>"]
    low, high = evaluation.score.interval
    return [
        f'<p><span class="headline">{100 * evaluation.accuracy:.1f} %</span> accuracy on {escape(evaluation.data)}: '
        f"{evaluation.score.num_correct:,} of {evaluation.score.num_images:,} images; "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %.</p>"
    ]


def _classes(evaluation: Evaluation | None) -> Iterable[str]:
    if evaluation is None:
        return []
    rows = [
        (escape(row.name), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.num_images:,}")
        for row in evaluation.classes
    ]
    names = [row.name for row in evaluation.classes]
    return [
        "<h2>Class by class</h2>",
        markup.table(("class", "precision", "recall", "F1", "images"), rows, numbers_from=1),
        "<h2>What was taken for what</h2>",
        draw_confusion(evaluation.confusion, names),
    ]


def _trouble(records: Sequence[dict[str, Any]]) -> Iterable[str]:
    refused = [record for record in records if record["kind"] == "refused"]
    if refused:
        yield f"steps refused because {refused[-1]['cause']} was not finite: {len(refused)}"
    yield from (record["reason"] for record in records if record["kind"] == "damaged_checkpoint")
    # A run that was resumed says some things again.
    yield from dict.fromkeys(note for record in records if record["kind"] == "health" for note in record["notes"])


def _skipped(skipped: Sequence[Sequence[str]]) -> str:
    if not skipped:
        return ""
    rows = [(escape(where), escape(reason)) for where, reason in skipped[:200]]
    return f"<h2>Unreadable files that were left out: {len(skipped)}</h2>" + markup.table(("file", "why"), rows)


def _last(records: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((record for record in reversed(records) if record["kind"] == kind), {})


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
