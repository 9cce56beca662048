"""Report input -> how the training went: curves, problems, and what was chosen and why."""

from collections.abc import Iterator
from html import escape

from vitreous.recipe.plan import show
from vitreous.use.evaluate.headline import first_model_text
from vitreous.use.html import markup
from vitreous.use.report.figures import draw_curves
from vitreous.use.report.section import ReportInput, Section
from vitreous.wording import plural

_WEIGHTS = {"trained": "the weights of the last step", "average": "the running average of the weights",
            "best": "the weights of the best evaluation",
            "first": "the first model, a head on pretrained features"}  # fmt: skip


def training_section(report: ReportInput) -> Section:
    """Show curves and choices of a run."""
    plan, end = report.last("plan"), report.last("end")
    notes = [*plan.get("notes", ()), *_problems(report)]
    is_chosen = end.get("chosen_on_val", "val" in end.get("metrics", {}))  # older runs always chose
    why = ", which had the lowest validation loss" if is_chosen else ""
    steps, kept = plural(end.get("step", 0), "training step"), _WEIGHTS.get(end.get("weights", ""), "the weights")
    summary = f"recipe {plan.get('recipe', '')}: {steps} in {end.get('elapsed_s', 0):,.0f} s; kept {kept}{why}"
    choices = [
        (f"<code>{escape(c['key'])}</code>", escape(show(tuple(v) if isinstance(v, list) else v)), escape(c["reason"]))
        for c in plan.get("choices", ())
        for v in [c["value"]]
    ]
    first = report.last("first_model")
    begun = [first_model_text(first)] if first else []
    parts = (
        markup.sentences([*plan.get("summary", ()), *begun, summary]),
        draw_curves(report.records) if report.last("step") else "",
        f"<h3>Notes</h3>{markup.sentences(notes) or '<p>None.</p>'}",
        "<h3>Settings that were chosen, and why</h3>",
        markup.table(("key", "value", "reason"), choices),
    )
    return Section("training", "Training", parts, {"summary": summary, "notes": notes})


def _problems(report: ReportInput) -> Iterator[str]:
    refused = [record for record in report.records if record["kind"] == "refused"]
    if refused:
        yield f"{plural(len(refused), 'step')} rejected because {refused[-1]['cause']} was not finite"
    yield from (record["reason"] for record in report.records if record["kind"] == "damaged_checkpoint")
    health = [record["notes"] for record in report.records if record["kind"] == "health"]
    yield from dict.fromkeys(note for notes in health for note in notes)  # a resumed run records some notes twice
