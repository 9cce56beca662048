"""Events of a run -> a live line on a terminal, plain lines elsewhere; results -> tables."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from vitreous.recipe.plan import show

_PLAIN_LINES = 20
"""About so many lines report the progress of a run where the output is no terminal."""
_PLAIN_WIDTH = 10_000
"""There a row of a table is one line, however long; a terminal folds its cells."""


class Screen:
    """Listens to a run and shows it; use it as a context, so that the live line ends with it.

    Args:
        console: Where to show it; None is standard output.
        stderr: Use standard error instead, where standard output belongs to a JSON document.
    """

    def __init__(self, console: Console | None = None, *, stderr: bool = False) -> None:
        self.console = console or Console(stderr=stderr, soft_wrap=True, highlight=False)
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self._live = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._shown_progress = -1.0
        self._began: tuple[float, float] | None = None
        self._is_repeated = False

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """One line; brackets and colons in it are text, not markup or pictures; what commands a terminal is spelled."""
        self.console.print(Text(_visible(text), style=style or ""))

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show an event; events without a method of their own are for the records alone."""
        show = getattr(self, f"_show_{kind}", None)
        if show is not None:
            show(fields)

    def _show_reading(self, fields: Mapping[str, Any]) -> None:
        text = f"{fields['done']:,} of {fields['total']:,} images"
        self._advance(fields["what"], fields["done"] / max(fields["total"], 1), text)

    def _show_member(self, fields: Mapping[str, Any]) -> None:
        """A run of a series begins; what the first one said of data and plan is not said again."""
        done = ": is complete already" if fields["done"] else ""
        self.say(f"{fields['name']} ({fields['number']} of {fields['total']}){done}", style="bold")
        for task in self._tasks.values():
            self._live.remove_task(task)
        self._tasks.clear()
        self._shown_progress, self._began, self._is_repeated = -1.0, None, fields["number"] > 1

    def _show_plan(self, fields: Mapping[str, Any]) -> None:
        if self._is_repeated:
            self.say(fields["summary"][0])
            return
        for sentence in fields["summary"]:
            self.say(sentence)
        wanted = {"data.img_size", "data.flip", "model.embed_dim", "train.epochs", "train.budget_s"}
        for choice in fields["choices"]:
            if choice["key"] in wanted:
                self.say(f"  {choice['key']} = {show(choice['value'])}: {choice['reason']}", style="dim")
        for note in fields["notes"]:
            self.say(f"note: {note}", style="yellow")

    def _show_data(self, fields: Mapping[str, Any]) -> None:
        skipped = fields["skipped"]
        if skipped:
            first = f"{skipped[0][0]}: {skipped[0][1]}"
            self.say(f"note: unreadable files that are left out: {len(skipped):,}, e.g. {first}", style="yellow")
        for sentence in () if self._is_repeated else fields.get("findings", ()):
            self.say(f"note: {sentence}", style="yellow")
        self._say_cache(list(fields.get("cache", {}).values()))

    def _show_skipped(self, fields: Mapping[str, Any]) -> None:
        self._show_data(fields)

    def _show_progress(self, fields: Mapping[str, Any]) -> None:
        text = (
            f"epoch {fields['epoch']:.1f}  loss {fields['loss']:.3f}  accuracy {100 * fields['accuracy']:.1f} %  "
            f"{fields['images_per_s']:,.0f} images/s{self._time_left(fields['progress'])}"
        )
        self._advance("training", fields["progress"], text)
        if not self.console.is_terminal and fields["progress"] >= self._shown_progress + 1 / _PLAIN_LINES:
            self._shown_progress = fields["progress"]
            self.say(f"{100 * fields['progress']:3.0f} %  {text}")

    def _show_step(self, fields: Mapping[str, Any]) -> None:
        self._show_progress(fields)

    def _show_evaluation(self, fields: Mapping[str, Any]) -> None:
        if fields["weights"] == "average":
            text = f"validation accuracy {100 * fields['accuracy']:.1f} %, loss {fields['loss']:.3f}"
            self.say(f"epoch {fields['epoch']:.1f}: {text}")

    def _show_stopped_early(self, fields: Mapping[str, Any]) -> None:
        best = f"validation loss was lowest, {fields['best_loss']:.3f}, at {100 * fields['best_progress']:.0f} %"
        self.say(f"stopping early at step {fields['step']:,}: {best}")

    def _show_refused(self, fields: Mapping[str, Any]) -> None:
        self.say(f"step {fields['step']} refused: {fields['cause']} is not finite; trying again", style="yellow")

    def _show_health(self, fields: Mapping[str, Any]) -> None:
        for sentence in fields["notes"]:
            self.say(f"note: {sentence}", style="yellow")

    def _show_rollback(self, fields: Mapping[str, Any]) -> None:
        text = f"back to {fields['checkpoint']} with {fields['lr_scale']:g} of the learning rate"
        self.say(text, style="yellow")

    def _show_damaged_checkpoint(self, fields: Mapping[str, Any]) -> None:
        self.say(f"note: {fields['reason']}", style="yellow")

    def _show_check(self, fields: Mapping[str, Any]) -> None:
        self.say(
            f"check: a fresh model learned {fields['num_images']} images by heart in {fields['steps']} steps "
            f"({100 * fields['accuracy']:.0f} % right)"
        )

    def _show_compiled(self, fields: Mapping[str, Any]) -> None:
        self.say(f"train.compile={fields['mode']}: compiled in {fields['seconds']:g} s")

    def _show_resume(self, fields: Mapping[str, Any]) -> None:
        self.say(f"going on from step {fields['step']:,} ({fields['checkpoint']})")

    def _show_restart(self, fields: Mapping[str, Any]) -> None:
        text = f"one of {fields['num_processes']} processes failed; all were started again"
        self.say(f"{text} (restart {fields['number']})", style="yellow")

    def _show_complete(self, fields: Mapping[str, Any]) -> None:
        self.say(f"{fields['run']} is complete already: there is nothing left to train")

    def _say_cache(self, uses: Sequence[Mapping[str, Any]]) -> None:
        made = sum(use["num_bytes"] for use in uses if use["is_new"])
        reasons = [use["reason"] for use in uses if use["reason"]]
        if made:
            text = f"{made / 1e6:,.1f} MB of decoded images are kept in {uses[0]['folder']}"
            self.say(f"{text}: the next run reads them (--data.cache none keeps none)", style="dim")
        if reasons:
            self.say(f"decoded images are not kept in {uses[0]['folder']}: {reasons[0]}", style="dim")

    def _advance(self, what: str, share: float, text: str) -> None:
        if what not in self._tasks:
            for task in self._tasks.values():
                self._live.update(task, visible=False)
            self._tasks[what] = self._live.add_task(what, total=1.0, text=text)
        self._live.update(self._tasks[what], completed=share, text=text)

    def _time_left(self, progress: float) -> str:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, progress)
        began_s, began_at = self._began
        if progress - began_at < 0.01 or progress >= 1:
            return ""
        return f"  {duration((now - began_s) / (progress - began_at) * (1 - progress))} left"


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def accuracy_line(found: Mapping[str, Any]) -> str:
    """Accuracy with its interval and the images it rests on."""
    low, high = found["interval_95"]
    return (
        f"{100 * found['accuracy']:.1f} % ({found['num_correct']:,} of {found['num_images']:,} images right; "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def print_table(console: Console, rows: Sequence[Sequence[str]], *, numbers_from: int) -> None:
    """A table whose first row names its columns; from column `numbers_from` on they hold numbers."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if index >= numbers_from else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(_visible(cell)) for cell in row))
    console.print(table, soft_wrap=False)


def print_json(content: object) -> None:
    """One JSON document on standard output, for machines."""
    print(json.dumps(content, ensure_ascii=False, indent=2, default=_plain_types), flush=True)


def print_facts(screen: Screen, facts: Iterable[tuple[str, str]]) -> None:
    """Names and values below each other."""
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        screen.say(f"{name:<{width}}  {value}")


def _visible(text: str) -> str:
    """Characters that command a terminal, which names of files may hold, as their escapes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _plain_types(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)
