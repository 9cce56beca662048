"""`vitreous compare` -> which of two runs or series is better, and how sure that is."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.use.series.compare import Comparison
from vitreous.use.series.compare import compare as compare_runs


def compare(
    a: Path, b: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False
) -> None:
    """Compare two runs or series, image by image, on the images that both were tested on.

    Args:
        a: Folder of a run, or of a series that `--folds` or `--seeds` made.
        b: Another.
        as_json: One JSON document instead of sentences.
    """
    found = compare_runs(a, b)
    if as_json:
        print_json(found.as_dict())
        return
    screen = Screen()
    rows = [
        ("", "accuracy", "tested on"),
        (f"A: {found.a}", f"{100 * found.accuracy_a:.1f} %", f"{found.num_images_a:,}"),
        (f"B: {found.b}", f"{100 * found.accuracy_b:.1f} %", f"{found.num_images_b:,}"),
    ]
    screen.say(f"on the {found.num_images:,} images that both were tested on:")
    print_table(screen.console, rows, numbers_from=1)
    screen.say(f"\nB - A: {_points(found.difference)} points; 95 % interval {_interval(found.interval_95)}")
    if found.p_value is not None:
        p_value = f"p = {found.p_value:.2g}" if found.p_value >= 1e-4 else "p < 0.0001"
        screen.say(f"right in A alone: {found.only_a}, in B alone: {found.only_b} (exact McNemar test, {p_value})")
    if found.interval_seeds_95 is not None:
        screen.say(f"over {len(found.seeds)} pairs of seeds: 95 % interval {_interval(found.interval_seeds_95)}")
    screen.say(_verdict(found), style="bold green" if found.better else "yellow")


def _verdict(found: Comparison) -> str:
    if found.better is None:
        return "neither is shown to be better: the interval holds 0"
    return f"{'A' if found.better == found.a else 'B'} is better"


def _interval(found: tuple[float, float]) -> str:
    return f"{_points(found[0])} to {_points(found[1])}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
