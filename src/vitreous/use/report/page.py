"""Run folder -> `report.html`: accuracy, training curves, scores per class, the plan and its reasons."""

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
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.predict.table import read_held_out
from vitreous.use.report import markup, multilabel
from vitreous.use.report.figures import draw_confusion, draw_curves
from vitreous.wording import plural


def write_report(folder: RunFolder) -> None:
    """Write the report of a finished run.

    Raises:
        NotARunError: The run is not finished.
        DamagedFileError: A file of the run was altered.
        SaveError: The report could not be written.
    """
    records = read_records(folder.records)
    atomic.write_text(folder.report, _page(folder, records, _held_out(folder)))


def _held_out(folder: RunFolder) -> Evaluation | LabelEvaluation | None:
    """Return the scores on the held-out images, from what the run wrote; None if it has no held-out images."""
    metadata = read_metadata(folder.model)
    split = scored_split(metadata["metrics"])
    if split is None:
        return None
    classes, metrics = tuple(metadata["classes"]), metadata["metrics"][split]
    index = {name: number for number, name in enumerate(classes)}
    rows = read_held_out(folder.predictions)
    data = f"the {'validation' if split == 'val' else split} images of {metadata['data']}"
    if metadata.get("task") == "multilabel":
        return multilabel.read_evaluation(data, rows, metrics["loss"], classes, metadata["thresholds"])
    return count_classes(
        data=data,
        score=Score(metrics["num_images"], metrics["num_correct"], metrics["loss"]),
        true=[index[row.true] for row in rows],
        predicted=[index[row.predicted] for row in rows],
        classes=classes,
    )


def _page(folder: RunFolder, records: Sequence[dict[str, Any]], evaluation: Evaluation | LabelEvaluation | None) -> str:
    plan, end, data = _last(records, "plan"), _last(records, "end"), _last(records, "data")
    title, run = folder.path.resolve().name, quote(str(folder.path))
    return markup.page(
        title,
        [
            *_headline(evaluation),
            markup.sentences([*plan.get("summary", ()), _training(plan, end)]),
            "<h2>Training curves</h2>",
            draw_curves(records),
            *_classes(evaluation),
            "<h2>Settings that were chosen, and why</h2>",
            markup.table(
                ("key", "value", "reason"),
                [(f"<code>{escape(c['key'])}</code>", escape(show(_tupled(c["value"]))), escape(c["reason"]))
                 for c in plan.get("choices", ())],
            ),
            "<h2>Notes</h2>",
            markup.sentences([*plan.get("notes", ()), *data.get("findings", ()), *_problems(records)])
            or "<p>None.</p>",
            _skipped(data.get("skipped", ())),
            f"<h2>Next steps</h2><pre>vitreous predict {escape(run)} IMAGE\n"
            f"vitreous evaluate {escape(run)} DATA</pre>",
        ],
    )  # fmt: skip


def _training(plan: dict[str, Any], end: dict[str, Any]) -> str:
    names = {"trained": "the weights of the last step", "average": "the running average of the weights",
             "best": "the weights of the best evaluation"}  # fmt: skip
    kept = names.get(end.get("weights", ""), "the weights")
    why = ", which had the lowest validation loss" if "val" in end.get("metrics", {}) else ""
    return (
        f"recipe {plan.get('recipe', '')}: {plural(end.get('step', 0), 'step')} in {end.get('elapsed_s', 0):,.0f} s; "
        f"kept {kept}{why}"
    )


def _headline(evaluation: Evaluation | LabelEvaluation | None) -> Iterable[str]:
    if isinstance(evaluation, LabelEvaluation):
        return multilabel.headline(evaluation)
    if evaluation is None:
        return ["<p>The run has no test or validation images, so its accuracy is unknown.</p>"]
    low, high = evaluation.score.interval
    return [
        f'<p><span class="headline">{100 * evaluation.accuracy:.1f}%</span> accuracy on {escape(evaluation.data)}: '
        f"{evaluation.score.num_correct:,} of {plural(evaluation.score.num_images, 'image')} correct; "
        f"95% interval {100 * low:.1f}% to {100 * high:.1f}%.</p>"
    ]


def _classes(evaluation: Evaluation | LabelEvaluation | None) -> Iterable[str]:
    if isinstance(evaluation, LabelEvaluation):
        return multilabel.label_scores(evaluation)
    if evaluation is None:
        return []
    rows = [
        (escape(row.name), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.num_images:,}")
        for row in evaluation.classes
    ]
    names = [row.name for row in evaluation.classes]
    return [
        "<h2>Scores per class</h2>",
        markup.table(("class", "precision", "recall", "F1", "images"), rows, numbers_from=1),
        "<h2>Confusion matrix</h2>",
        draw_confusion(evaluation.confusion, names),
    ]


def _problems(records: Sequence[dict[str, Any]]) -> Iterable[str]:
    refused = [record for record in records if record["kind"] == "refused"]
    if refused:
        yield f"{plural(len(refused), 'step')} rejected because {refused[-1]['cause']} was not finite"
    yield from (record["reason"] for record in records if record["kind"] == "damaged_checkpoint")
    # A resumed run records some notes twice.
    yield from dict.fromkeys(note for record in records if record["kind"] == "health" for note in record["notes"])


def _skipped(skipped: Sequence[Sequence[str]]) -> str:
    if not skipped:
        return ""
    rows = [(escape(where), escape(reason)) for where, reason in skipped[:200]]
    return f"<h2>{plural(len(skipped), 'unreadable file')} skipped</h2>" + markup.table(("file", "reason"), rows)


def _last(records: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((record for record in reversed(records) if record["kind"] == kind), {})


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
