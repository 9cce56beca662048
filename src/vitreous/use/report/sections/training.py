"""Report input -> how the training went: curves, problems, and what was chosen and why."""

from collections.abc import Iterator
from html import escape
from shlex import quote
from typing import Any

from vitreous.recipe.plan import show
from vitreous.use import markup
from vitreous.use.report.figures import draw_curves, evaluations
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural

_STILL_FALLING = 0.05
"""Share of the validation loss that the last fifth of a run removes, from which longer training is advised."""


def training_section(report: ReportInput) -> Section:
    """Show curves and choices of a run."""
    plan, end = report.last("plan"), report.last("end")
    notes = [*plan.get("notes", ()), *_problems(report)]
    choices = [(f"<code>{escape(c['key'])}</code>", escape(_shown(c["value"])), escape(c["reason"]))
               for c in plan.get("choices", ())]  # fmt: skip
    parts = (
        markup.sentences([*plan.get("summary", ()), _summary(plan, end)]),
        draw_curves(report.records),
        "<h3>Notes</h3>",
        markup.sentences(notes) or "<p>None.</p>",
        "<h3>Settings that were chosen, and why</h3>",
        markup.table(("key", "value", "reason"), choices),
    )
    numbers = {key: end.get(key) for key in ("step", "elapsed_s", "weights")} | {"notes": notes}
    return Section("training", "Training", parts, numbers, tuple(_advice(report)))


def _summary(plan: Any, end: Any) -> str:
    names = {"trained": "the weights of the last step", "average": "the running average of the weights",
             "best": "the weights of the best evaluation"}  # fmt: skip
    kept = names.get(end.get("weights", ""), "the weights")
    is_chosen = end.get("chosen_on_val", "val" in end.get("metrics", {}))  # older runs always chose
    why = ", which had the lowest validation loss" if is_chosen else ""
    return (
        f"recipe {plan.get('recipe', '')}: {plural(end.get('step', 0), 'step')} in {end.get('elapsed_s', 0):,.0f} s; "
        f"kept {kept}{why}"
    )


def _problems(report: ReportInput) -> Iterator[str]:
    refused = [record for record in report.records if record["kind"] == "refused"]
    if refused:
        yield f"{plural(len(refused), 'step')} rejected because {refused[-1]['cause']} was not finite"
    yield from (record["reason"] for record in report.records if record["kind"] == "damaged_checkpoint")
    # A resumed run records some notes twice.
    yield from dict.fromkeys(
        note for record in report.records if record["kind"] == "health" for note in record["notes"]
    )


def _advice(report: ReportInput) -> Iterator[Advice]:
    """Advise to train longer if the validation loss was still falling at the end."""
    losses = evaluations(report.records, "loss", "average")
    if len(losses) < 4 or not report.data:
        return
    end, last = losses[-1]
    before = next(loss for epoch, loss in losses if epoch >= 0.8 * end)
    if before > 0 and 1 - last / before >= _STILL_FALLING:
        text = f"The validation loss fell by {1 - last / before:.0%} in the last fifth of the run: train twice as long."
        train = report.config.train
        longer = f"--budget {2 * train.budget_s:.0f}s" if train.budget_s else f"--epochs {2 * train.epochs:g}"
        yield Advice(text, f"vitreous train --recipe {quote(str(report.folder.config))} {longer}", 0.01)


def _shown(value: Any) -> str:
    return show(tuple(value) if isinstance(value, list) else value)
