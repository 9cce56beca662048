"""Events of a run -> a live line on a terminal, plain lines elsewhere; results -> tables."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from vitreous.training.folder.progress import RunProgress
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, first_model_text, never_predicted_text
from vitreous.use.evaluate.multilabel import labels_text
from vitreous.wording import duration, plural, show, visible

_PLAIN_LINES = 20
"""Approximate number of progress lines of a run when the output is not a terminal."""
_LEAST_HEIGHT = 8
"""Lines of a terminal that has room for the curves of a run."""
_TRAINING = "training"
_MOST_ROWS = 1_000
"""Largest number of rows of a table."""
_PLAIN_WIDTH = 10_000
"""Width of output that is not a terminal, so that each row of a table stays on one line."""

SILENT = frozenset({"checkpoint", "end", "horizon", "interrupted", "pretrained", "start", "teacher"})
"""Kinds of events that are recorded but not shown: the plan, the error or the final lines say the same."""

_SENTENCES = {
    "backbone": ("{text}", "bold"),
    "compiled": ("train.compile={mode}: compiled in {seconds:g} s", ""),
    "complete": ("{run} is already complete: nothing left to train", ""),
    "damaged_checkpoint": ("note: {reason}", "yellow"),
    "device": (
        "note: {wanted}: not available on this machine; continuing on {device}, so the weights will differ slightly",
        "yellow",
    ),
    "estimate": ("{text}", ""),
    "familiarity": ("{text}", ""),
    "moved": ("data has moved to {to}; its content is that of the run", ""),
    "pretraining": ("first {share:.0%} of the run without labels; then the labels", ""),
    "refused": ("step {step:,} not taken: {cause} is not finite; trying again", "yellow"),
    "restart": ("one of {num_processes} processes failed; all were restarted (restart {number})", "yellow"),
    "resume": ("resuming from step {step:,} ({checkpoint})", ""),
    "stopped_early": (
        "early stopping at step {step:,}: the lowest calibrated validation loss, {best_loss:.3f}, was at "
        "{best_progress:.0%} of the run",
        "",
    ),
    "taught": ("{text}", ""),
    "unlocked": ("note: {run} cannot be locked on this system; make sure that no other process writes to it", "yellow"),
}
"""Text and style of the events that are one sentence with some of their fields."""


class _Live(Progress):
    """The line of what is going on now; below it, while a run trains, its curves and its best evaluation."""

    def __init__(self, console: Console, run: RunProgress) -> None:
        self._run = run
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the parts of the view, from top to bottom."""
        yield self.make_tasks_table(self.tasks)
        is_training = any(task.visible and task.description == _TRAINING for task in self.tasks)
        if is_training and self.console.height >= _LEAST_HEIGHT:
            rows = Table.grid(padding=(0, 2))
            for name, curve, value in self._run.rows():
                shown = "" if self.console.options.ascii_only else curve
                rows.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in (name, shown, value)))
            yield rows


class Screen:
    """A listener that shows the events of a run; as a context manager, it removes its live line at the end.

    Args:
        console: Where to show the events; None for standard output.
        stderr: Use standard error instead, when standard output belongs to a JSON document.

    Attributes:
        console: Where the events are shown.
        shown: The method that shows an event, by the kind of event.
    """

    def __init__(self, console: Console | None = None, *, stderr: bool = False) -> None:
        self.console = console or Console(stderr=stderr, soft_wrap=True, highlight=False)
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        self._run = RunProgress()
        self._live = _Live(self.console, self._run)
        self._tasks: dict[str, TaskID] = {}
        self._shown_progress = -1.0
        self._is_repeated = False
        self._is_lost = False
        self.shown: dict[str, Callable[[Mapping[str, Any]], None]] = {
            **{kind: partial(self._show_sentence, *sentence) for kind, sentence in _SENTENCES.items()},
            "check": self._show_overfitting,
            "data": self._show_data,
            "download": lambda fields: self._advance("downloading", fields["share"], fields["text"]),
            "evaluation": self._show_evaluation,
            "expected": lambda fields: self.say(f"{fields['text']}, about {duration(fields['seconds'])}"),
            "fit": lambda fields: self._forget_progress(),
            "health": lambda fields: self.say_notes(fields["notes"]),
            "member": self._show_member,
            "plan": self._show_plan,
            "progress": self._show_progress,
            "reading": self._show_reading,
            "rollback": self._show_rollback,
            "skipped": self._show_data,
            "step": self._show_progress,
            "first_model": lambda fields: self.say(first_model_text(fields)),
        }

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """Print one line literally: without markup or emoji, and with control characters as escapes."""
        self.console.print(Text(visible(text), style=style or ""))

    def say_notes(self, notes: Iterable[str]) -> None:
        """Print each of some sentences as a note."""
        for note in notes:
            self.say(f"note: {note}", style="yellow")

    def say_accuracy(self, prefix: str, found: Mapping[str, Any]) -> None:
        """Print an accuracy after `prefix`, its baseline, and the classes that are never predicted."""
        self.say(f"{prefix} {accuracy_text(found)}", style="bold green")
        for text, style in ((baseline_text(found), None), (never_predicted_text(found), "yellow")):
            if text:
                self.say(text, style=style)

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show an event, unless it is only for the records. If the output cannot be written, the run still goes on."""
        self._run.listen(kind, fields)
        if kind in self.shown and not self._is_lost:
            try:
                self.shown[kind](fields)
            except (OSError, SystemExit):  # the disk is full; rich exits if the reader of a pipe is gone
                self._is_lost = True

    def _show_sentence(self, text: str, style: str, fields: Mapping[str, Any]) -> None:
        self.say(text.format_map(fields), style=style)

    def _show_reading(self, fields: Mapping[str, Any]) -> None:
        text = f"{fields['done']:,} of {plural(fields['total'], 'image')}"
        self._advance(fields["what"], fields["done"] / max(fields["total"], 1), text)

    def _show_member(self, fields: Mapping[str, Any]) -> None:
        """Show that a run of a series begins; data and plan are only shown for the first one."""
        done = ": already complete" if fields["done"] else ""
        self.say(f"{fields['name']} ({fields['number']} of {fields['total']}){done}", style="bold")
        for task in self._tasks.values():
            self._live.remove_task(task)
        self._tasks.clear()
        self._forget_progress()
        self._is_repeated = fields["number"] > 1

    def _forget_progress(self) -> None:
        """Begin at 0, for the next run of a series or the next stage of a run."""
        self._shown_progress = -1.0

    def _show_plan(self, fields: Mapping[str, Any]) -> None:
        if self._is_repeated:
            self.say(fields["summary"][0])
            return
        for sentence in fields["summary"]:
            self.say(sentence)
        keys = {"data.img_size", "data.flip", "data.sampler", "model.embed_dim", "train.epochs", "train.budget_s"}
        for choice in fields["choices"]:
            if choice["key"] in keys:
                self.say(f"  {choice['key']} = {show(choice['value'])}: {choice['reason']}", style="dim")
        self.say_notes(fields["notes"])

    def _show_data(self, fields: Mapping[str, Any]) -> None:
        skipped = fields["skipped"]
        num_new = fields.get("num_undecodable", len(skipped))  # the plan has counted the others
        if num_new:
            where, reason = skipped[-num_new]
            total = f" ({len(skipped):,} in total)" if len(skipped) > num_new else ""
            self.say_notes([f"{plural(num_new, 'unreadable file')} skipped{total}, such as {where}: {reason}"])
        self.say_notes(() if self._is_repeated else fields.get("findings", ()))
        self._say_cache(list(fields.get("cache", {}).values()))

    def _show_progress(self, fields: Mapping[str, Any]) -> None:
        share, left = fields["progress"], self._run.time_left()
        accuracy = f"accuracy {fields['accuracy']:.1%}  " if "accuracy" in fields else ""
        if self.console.is_terminal:
            self._advance(_TRAINING, share, self._run.headline())
        elif share >= self._shown_progress + 1 / _PLAIN_LINES:
            self._shown_progress = share
            self.say(
                f"{share:4.0%}  epoch {fields['epoch']:.1f}  loss {fields['loss']:.3f}  {accuracy}"
                f"{fields['images_per_s']:,.0f} images/s{left and f'  {left}'}"
            )

    def _show_evaluation(self, fields: Mapping[str, Any]) -> None:
        if fields["weights"] == "average":
            balanced = f" (balanced {fields['balanced_accuracy']:.1%})" if "balanced_accuracy" in fields else ""
            text = f"validation accuracy {fields['accuracy']:.1%}{balanced}, loss {fields['loss']:.3f}"
            self.say(f"epoch {fields['epoch']:.1f}: {labels_text(fields, 'validation')}{text}")

    def _show_rollback(self, fields: Mapping[str, Any]) -> None:
        place = fields["checkpoint"] or "the start"
        self.say(f"returned to {place}; the learning rate is now multiplied by {fields['lr_scale']:g}", style="yellow")

    def _show_overfitting(self, fields: Mapping[str, Any]) -> None:
        self.say(
            f"train.overfit_one_batch: a fresh model fits {plural(fields['num_images'], 'image')} after "
            f"{plural(fields['steps'], 'step')} ({fields['accuracy']:.0%} correct)"
        )

    def _say_cache(self, uses: Sequence[Mapping[str, Any]]) -> None:
        made = sum(use["num_bytes"] for use in uses if use["is_new"])
        reasons = [use["reason"] for use in uses if use["reason"]]
        if made:
            text = f"{made / 1e6:,.1f} MB of decoded images are cached in {uses[0]['folder']}"
            self.say(f"{text} for the next run (--data.cache none turns this off)", style="dim")
        if reasons:
            self.say(f"decoded images are not cached in {uses[0]['folder']}: {reasons[0]}", style="dim")

    def _advance(self, what: str, share: float, text: str) -> None:
        if what not in self._tasks:
            for task in self._tasks.values():
                self._live.update(task, visible=False)
            self._tasks[what] = self._live.add_task(what, total=1.0, text=text)
        self._live.update(self._tasks[what], completed=share, text=text)


def print_table(console: Console, rows: Sequence[Sequence[str]], *, numbers_from: int) -> None:
    """Print a table; of a very long one, which takes half a minute, only the first rows and the number of others.

    The first row holds the names of the columns. Columns from number `numbers_from` on are aligned to the right.
    """
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(rows[0]):
        table.add_column(_one_line(name), justify="right" if index >= numbers_from else "left", overflow="fold")
    for row in rows[1 : 1 + _MOST_ROWS]:
        table.add_row(*map(_one_line, row))
    console.print(table, soft_wrap=False)
    if len(rows) > 1 + _MOST_ROWS:
        console.print(f"and {plural(len(rows) - 1 - _MOST_ROWS, 'more row')}; --json has all of them")


def print_json(content: object) -> None:
    """Print one JSON document on standard output, in ASCII: no encoding of a terminal or pipe can damage it."""
    print(json.dumps(content, indent=2, default=_plain_types), flush=True)


def print_facts(screen: Screen, facts: Iterable[tuple[str, str]]) -> None:
    """Print pairs of names and values, one per line and aligned."""
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        screen.say(f"{name:<{width}}  {value}")


def _one_line(cell: str) -> Text:
    return Text(visible(cell).replace("\n", "\\n"))


def _plain_types(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)
