"""Screen: a live line on a terminal, plain lines otherwise."""

import errno
import io
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from vitreous.cli.screen import SILENT, Screen, print_json, print_table

PROGRESS = {"epoch": 1.25, "loss": 0.5, "accuracy": 0.75, "images_per_s": 1234.5, "progress": 0.25}


def _plain() -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    return Screen(Console(file=file, soft_wrap=True, highlight=False)), file


def _terminal(width: int = 80) -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, soft_wrap=True, highlight=False, _environ={})
    return Screen(console), file


def test_plain_progress_is_about_twenty_lines_for_any_number_of_steps() -> None:
    screen, file = _plain()
    with screen:
        for step in range(1, 1001):
            screen.listen("progress", PROGRESS | {"progress": step / 1000})
    lines = file.getvalue().splitlines()
    assert 15 <= len(lines) <= 21
    assert lines[0].startswith("  0%  epoch 1.2  loss 0.500  accuracy 75.0%  1,234 images/s")


def test_terminal_progress_is_erased_at_the_end() -> None:
    screen, file = _terminal()
    with screen:
        screen.listen("progress", PROGRESS)
        screen.say("a note", style="yellow")
    text = file.getvalue()
    assert "training" in text
    assert "epoch 1.2" in text
    assert text.rstrip().endswith("\x1b[2K")  # the line is erased and the cursor is visible again
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_live_line_is_erased_after_an_error() -> None:
    screen, file = _terminal()
    with pytest.raises(KeyError, match="progress"), screen:
        screen.listen("progress", {"epoch": 1.0, "loss": 0.5})
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def _view(screen: Screen) -> list[str]:
    """Return the lines of the live view as they are now."""
    with screen.console.capture() as captured:
        screen.console.print(screen._live.get_renderable(), soft_wrap=False)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", captured.get()).splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_live_view_has_bar_curves_and_best_and_fits_the_terminal(width: int) -> None:
    screen, _ = _terminal(width)
    screen.listen("fit", {"budget_s": 600.0})
    for number in range(50):
        screen.listen("step", PROGRESS | {"progress": number / 50, "loss": 2 - number / 50, "elapsed_s": 90.0})
    for number, loss in enumerate((0.9, 0.4, 0.7)):
        fields = {"weights": "average", "epoch": 3.0 * number, "accuracy": 0.5 + number / 10, "loss": loss}
        screen.listen("evaluation", fields)
    lines = _view(screen)
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert [line.split()[0] for line in lines] == ["training", "loss", "accuracy", "validation"]
    if width == 200:
        assert lines[0].endswith(" epoch 1.2  1,234 images/s  8 min 30 s left of 10 min 0 s")
        assert re.search(r"█[▇█]*[▂▃▄▅▆]+▁+  1\.020$", lines[1])
        assert lines[3].endswith("70.0%, loss 0.700; best so far 60.0%, loss 0.400, at epoch 3.0")


@pytest.mark.parametrize(("height", "encoding", "rows"), [(5, "utf-8", 1), (25, "ascii", 4), (25, "utf-8", 4)])
def test_curves_need_a_terminal_with_room_and_unicode(height: int, encoding: str, rows: int) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    screen = Screen(Console(file=file, force_terminal=True, width=80, height=height, _environ={}))
    for loss in (0.5, 0.4):
        screen.listen("step", PROGRESS | {"loss": loss})
    screen.listen("evaluation", {"weights": "average", "epoch": 1.0, "accuracy": 0.5, "loss": 1.0})
    lines = _view(screen)
    assert len(lines) == rows
    assert ("█" in "".join(lines)) == (encoding == "utf-8" and height == 25)


def test_a_warning_appears_above_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file = _terminal()
    monkeypatch.setattr(sys, "stderr", file)
    with screen:
        screen.listen("step", PROGRESS)
        screen._live.refresh()
        print("warning: values were clipped", file=sys.stderr)
        screen._live.refresh()
    before, _, after = file.getvalue().partition("warning: values were clipped\n")
    assert before.endswith("\x1b[2K")  # the view is erased first
    assert "training" in after  # and drawn again below


def test_time_left_is_shown_once_it_can_be_estimated() -> None:
    screen, file = _plain()
    screen.listen("progress", PROGRESS | {"progress": 0.1})
    screen.listen("progress", PROGRESS | {"progress": 0.6})
    screen.listen("progress", PROGRESS | {"progress": 1.0})
    first, second, last = file.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith(" s left")
    assert "left" not in last


def test_brackets_and_colons_are_printed_verbatim(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[red]x[/red] :cat: \\[y] [/] " + "long " * 60
    Screen().say(text, style="bold")
    assert capsys.readouterr().out == text + "\n"


def test_events_for_the_records_are_not_shown() -> None:
    screen, file = _plain()
    for kind in SILENT:
        screen.listen(kind, {"step": 3})
    screen.listen("skipped", {"skipped": ()})
    assert file.getvalue() == ""


def test_each_kind_of_event_is_either_shown_or_silent() -> None:
    assert not SILENT & set(_plain()[0].shown)


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        ("refused", {"step": 7, "cause": "the loss"}, "step 7 not taken: the loss is not finite; trying again"),
        ("rollback", {"checkpoint": "step-3", "lr_scale": 0.25},
         "returned to step-3; the learning rate is now multiplied by 0.25"),
        ("rollback", {"checkpoint": "", "lr_scale": 0.5},
         "returned to the start; the learning rate is now multiplied by 0.5"),
        ("check", {"num_images": 32, "steps": 41, "accuracy": 0.96875},
         "train.overfit_one_batch: a fresh model fits 32 images after 41 steps (97% correct)"),
        ("damaged_checkpoint", {"reason": "x: cut short"}, "note: x: cut short"),
        ("resume", {"step": 1234, "checkpoint": "step-1234"}, "resuming from step 1,234 (step-1234)"),
        ("complete", {"run": "runs/x"}, "runs/x is already complete: nothing left to train"),
        ("skipped", {"skipped": [("a.png", "empty file"), ("b", "c")]},
         "note: 2 unreadable files skipped, such as a.png: empty file"),
        ("data", {"skipped": (), "findings": ("3 images are [red]copies.",)}, "note: 3 images are [red]copies."),
        ("evaluation", {"weights": "average", "epoch": 2.04, "accuracy": 0.125, "loss": 2.0},
         "epoch 2.0: validation accuracy 12.5%, loss 2.000"),
        ("evaluation",
         {"weights": "average", "epoch": 2.04, "accuracy": 0.97, "loss": 0.1, "balanced_accuracy": 0.5},
         "epoch 2.0: validation accuracy 97.0% (balanced 50.0%), loss 0.100"),
    ],
)  # fmt: skip
def test_event_is_one_line(kind: str, fields: dict[str, Any], line: str) -> None:
    screen, file = _plain()
    screen.listen(kind, fields)
    assert file.getvalue() == line + "\n"


def test_only_the_evaluation_of_the_average_is_shown() -> None:
    screen, file = _plain()
    screen.listen("evaluation", {"weights": "trained", "epoch": 2.0, "accuracy": 0.5, "loss": 1.0})
    assert file.getvalue() == ""


def test_accuracy_is_shown_with_its_interval_and_its_baseline() -> None:
    screen, file = _plain()
    found = {"accuracy": 0.875, "interval_95": [0.5291, 0.9776], "num_correct": 1400, "num_images": 1600}
    screen.say_accuracy("test accuracy:", found)  # of a run of an older version
    assert file.getvalue() == "test accuracy: 87.5% (1,400 of 1,600 images correct; 95% interval 52.9% to 97.8%)\n"
    rest = {"majority_class": "good", "majority_share": 0.8125, "balanced_accuracy": 0.5625, "never_predicted": ["bad"]}
    screen.say_accuracy("test accuracy:", found | rest)
    assert file.getvalue().splitlines()[2:] == [
        "always predicting 'good' would reach 81.2%; balanced accuracy (mean recall of the classes) 56.2%",
        "1 class is never predicted: 'bad'",
    ]


def test_files_that_cannot_be_decoded_are_counted_apart_from_those_in_the_plan() -> None:
    screen, file = _plain()
    skipped = [("a.png", "empty file"), ("b.png", "no image"), ("c.png", "cut short")]
    screen.listen("data", {"skipped": skipped, "num_undecodable": 1})
    assert file.getvalue() == "note: 1 unreadable file skipped (3 in total), such as c.png: cut short\n"
    screen.listen("data", {"skipped": skipped[:2], "num_undecodable": 0})
    assert len(file.getvalue().splitlines()) == 1


def test_row_of_a_table_is_one_line_outside_a_terminal() -> None:
    screen, file = _plain()
    long = "word " * 40 + "end"
    print_table(screen.console, [("name", "count"), (long, "3"), ("[b]:cat:", "14")], numbers_from=1)
    head, first, second = file.getvalue().splitlines()
    assert head.split() == ["name", "count"]
    assert first == f"{long}      3"
    assert second.split() == ["[b]:cat:", "14"]
    assert len(head) == len(first) == len(second)


def test_names_in_a_table_cannot_control_the_terminal_or_break_its_lines() -> None:
    screen, file = _terminal(200)
    name = "a\x1b]0;title\x07\nb"  # a class name in the head of a confusion matrix
    print_table(screen.console, [("class", name), (name, "3")], numbers_from=1)
    assert "\x1b]" not in file.getvalue()
    assert file.getvalue().count("a\\x1b]0;title\\x07\\nb") == 2
    assert len(file.getvalue().splitlines()) == 2


def test_terminal_folds_long_cells() -> None:
    screen, file = _terminal(30)
    print_table(screen.console, [("name", "count"), ("word " * 20, "3")], numbers_from=1)
    assert len(file.getvalue().splitlines()) > 3


def test_table_without_rows_is_empty() -> None:
    screen, file = _plain()
    print_table(screen.console, [], numbers_from=1)
    assert file.getvalue() == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_contains_arrays_and_names_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding, errors="backslashreplace"))
    print_json({"Äpfel": np.array([[1, 2]]), "猫 😺": np.int64(3), "x": np.float32(0.5)})
    assert json.loads(content.getvalue()) == {"Äpfel": [[1, 2]], "猫 😺": 3, "x": 0.5}


def test_early_stopping_reports_the_lowest_loss() -> None:
    screen, file = _plain()
    with screen:
        screen.listen("stopped_early", {"step": 1_234, "best_loss": 0.4567, "best_progress": 0.35})
    shown = "early stopping at step 1,234: the lowest calibrated validation loss, 0.457, was at 35% of the run\n"
    assert file.getvalue() == shown


class _Lost(io.StringIO):
    """Output that cannot be written any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error: OSError | None = error

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)


def test_run_goes_on_when_its_output_cannot_be_written() -> None:
    file = _Lost(OSError(errno.ENOSPC, "No space left on device"))
    screen = Screen(Console(file=file))
    with screen:
        screen.listen("evaluation", {"weights": "average", "epoch": 1.0, "accuracy": 0.5, "loss": 0.7})
        with pytest.raises(OSError, match="No space left"):
            screen.say("the result")  # the end of a command still fails, so the exit code shows the loss


def test_another_device_after_a_resume_is_a_note() -> None:
    screen, file = _plain()
    screen.listen("device", {"wanted": "train.device=cuda, train.precision=tf32", "device": "cpu"})
    text = "train.device=cuda, train.precision=tf32: not available on this machine; continuing on cpu"
    assert file.getvalue() == f"note: {text}, so the weights will differ slightly\n"


def test_a_very_long_table_is_cut_and_says_so() -> None:
    screen, file = _plain()
    rows = [("name", "count"), *((f"class {number}", "3") for number in range(2500))]
    print_table(screen.console, rows, numbers_from=1)
    lines = file.getvalue().splitlines()
    assert len(lines) == 1002
    assert lines[1000].split() == ["class", "999", "3"]
    assert lines[-1] == "and 1,500 more rows; --json has all of them"
