"""Run folder -> `report.html`: accuracy, training curves, scores per class, the plan and its reasons."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from shlex import quote
from typing import Any

from vitreous import atomic
from vitreous.model.weights import read_metadata
from vitreous.recipe.plan import show
from vitreous.tensor_file import parsing
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, scored_split
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.stored import stored_evaluation
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
    with parsing(folder.records, "restore the file, or train again"):
        page = _page(folder, read_records(folder.records), _held_out(folder))
    atomic.write_text(folder.report, page)


def _held_out(folder: RunFolder) -> Evaluation | LabelEvaluation | None:
    """Return the scores on the held-out images; None if the run has none."""
    metadata = read_metadata(folder.model)
    split = scored_split(metadata["metrics"])
    return None if split is None else stored_evaluation(folder, metadata, split)


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
            *_anatomy(folder),
            *_classes(evaluation),
            *_shortcuts(folder),
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
            f"vitreous evaluate {escape(run)} DATA\n"
            f"vitreous explain {escape(run)} --model</pre>",
        ],
    )  # fmt: skip


def _training(plan: dict[str, Any], end: dict[str, Any]) -> str:
    names = {"trained": "the weights of the last step", "average": "the running average of the weights",
             "best": "the weights of the best evaluation"}  # fmt: skip
    kept = names.get(end.get("weights", ""), "the weights")
    is_chosen = end.get("chosen_on_val", "val" in end.get("metrics", {}))  # older runs always chose
    why = ", which had the lowest validation loss" if is_chosen else ""
    return (
        f"recipe {plan.get('recipe', '')}: {plural(end.get('step', 0), 'step')} in {end.get('elapsed_s', 0):,.0f} s; "
        f"kept {kept}{why}"
    )


def _headline(evaluation: Evaluation | LabelEvaluation | None) -> Iterable[str]:
    if isinstance(evaluation, LabelEvaluation):
        return multilabel.headline(evaluation)
    if evaluation is None:
        return ["<p>The run has no test or validation images, so its accuracy is unknown.</p>"]
    found = evaluation.score.as_dict()
    accuracy, details = accuracy_text(found).split(" (", 1)
    return [
        f'<p><span class="headline">{accuracy}</span> accuracy on {escape(evaluation.data)}: {details[:-1]}.</p>',
        markup.sentences(text for text in (baseline_text(found), never_predicted_text(found, most=10_000)) if text),
    ]


def _anatomy(folder: RunFolder) -> Iterable[str]:
    if folder.anatomy.is_file():
        yield f'<p><a href="{folder.anatomy.relative_to(folder.path).as_posix()}">What the model has learned</a>: its '
        yield "filters, attention, features, and the accuracy without each of its parts.</p>"


def _classes(evaluation: Evaluation | LabelEvaluation | None) -> Iterable[str]:
    if isinstance(evaluation, LabelEvaluation):
        return multilabel.label_scores(evaluation)
    if evaluation is None:
        return []
    heading, *rows = evaluation.class_rows
    names = [row.name for row in evaluation.classes]
    return [
        "<h2>Scores per class</h2>",
        markup.table(heading, [(markup.class_name(name), *values) for name, *values in rows], numbers_from=1),
        *(["<h2>Confusion matrix</h2>", draw_confusion(evaluation.confusion, names)] if evaluation.has_matrix else ()),
    ]


def _shortcuts(folder: RunFolder) -> Iterable[str]:
    """Say what the check for shortcuts has found, if there was one."""
    if not folder.shortcuts.is_file():
        return []
    with parsing(folder.shortcuts, "remove the file, or check for shortcuts again"):
        found = [str(sentence) for sentence in json.loads(folder.shortcuts.read_text("utf-8"))["sentences"]]
    return ["<h2>Does the model look at the object?</h2>", markup.sentences(found)]


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
