"""Report input -> how the training went: curves, problems, what was chosen and why, and what would train better."""

from collections.abc import Iterator
from html import escape
from math import ceil

from vitreous.recipe.forecast import forecast_of
from vitreous.recipe.rules import by_num_images
from vitreous.recipe.shipped.from_scratch import BY_SIZE
from vitreous.use.evaluate.headline import first_model_text
from vitreous.use.html import markup
from vitreous.use.report.figures import draw_curves
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural, show

_WEIGHTS = {"trained": "the weights of the last step", "average": "the running average of the weights",
            "best": "the weights of the best evaluation",
            "first": "the first model, a head on pretrained features"}  # fmt: skip
_FEW_EPOCHS = 0.5
"""Share of the usual epochs below which a run from scratch is called short."""
_GAIN_OF_LENGTH, _GAIN_OF_WEIGHTS = 0.2, 0.5
"""Share of the mistakes that the usual epochs and pretrained weights avoid, a guess, unless the former is predicted. On
clothing-96px, 22% are wrong after ten minutes, and 8% with pretrained weights (`small_data.py`, `transfer.py`)."""


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
    return Section("training", "Training", parts, {"summary": summary, "notes": notes}, tuple(_advice(report)))


def _advice(report: ReportInput) -> Iterator[Advice]:
    """Advise a run from scratch to start from pretrained weights if it has photos, and to train longer."""
    found, train, recipe = report.evaluation, report.config.train, report.config.recipe
    if found is None or not report.data or recipe not in BY_SIZE or train.pretrained is not None:
        return
    wrong, command = 1 - found.accuracy, f"vitreous train {report.data}"
    if recipe == "small-photos":
        text = "Start from pretrained weights: on photos, they usually avoid more than half of the mistakes."
        yield Advice(text, f"{command} --pretrained auto", _GAIN_OF_WEIGHTS * wrong)
    num_train = report.last("data").get("num_train", 0)
    seen, usual = report.last("step").get("epoch", 0.0), by_num_images(num_train).epochs
    if 0 < seen < _FEW_EPOCHS * usual:
        times = f"{seen:.2g} times" if seen >= 1 else "less than once"
        text = f"Train longer: each image was seen {times}; for {num_train:,} images, {usual:g} times are usual."
        budget_m = ceil((train.budget_s or 0) * usual / seen / 60)
        option = f"--budget {budget_m}m" if train.budget_s else f"--epochs {usual:g}"
        gain = _GAIN_OF_LENGTH * wrong
        expected = forecast_of(report.config, seen, found.score.as_dict(), 60 * budget_m)
        if expected is not None:
            text, gain = f"{text} Expect {expected.text}.", expected.accuracy - found.accuracy
        yield Advice(text, f"{command} {option}", gain)


def _problems(report: ReportInput) -> Iterator[str]:
    refused = [record for record in report.records if record["kind"] == "refused"]
    if refused:
        yield f"{plural(len(refused), 'step')} rejected because {refused[-1]['cause']} was not finite"
    yield from (record["reason"] for record in report.records if record["kind"] == "damaged_checkpoint")
    health = [record["notes"] for record in report.records if record["kind"] == "health"]
    yield from dict.fromkeys(note for notes in health for note in notes)  # a resumed run records some notes twice
