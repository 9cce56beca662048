"""`vitreous compare` -> which of two runs or series is better, with a confidence interval."""

from pathlib import Path

from vitreous.cli.options import AsJson
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.use.series.compare import Comparison
from vitreous.use.series.compare import compare as compare_runs
from vitreous.wording import plural, shortened


def compare(a: Path, b: Path, /, *, as_json: AsJson = False) -> None:
    """Compare two runs or series on the images that both were tested on.

    Args:
        a: Folder of a run, or of a series made with `--folds` or `--seeds`.
        b: Folder of the run or series to compare it with.
        as_json: Print one JSON document instead of text.
    """
    found = compare_runs(a, b)
    if as_json:
        print_json(found.as_dict())
        return
    screen = Screen()
    show_comparison(screen, found)


def show_comparison(screen: Screen, found: Comparison) -> None:
    """Print both accuracies on the common images, their difference, and the classes in which answers differ."""
    rows = [
        ("", "accuracy", "tested on"),
        (f"A: {found.a}", f"{found.accuracy_a:.1%}", plural(found.num_images_a, "image")),
        (f"B: {found.b}", f"{found.accuracy_b:.1%}", plural(found.num_images_b, "image")),
        (f"always {shortened(found.majority_class)!r}", f"{found.majority_share:.1%}", ""),
    ]
    screen.say(f"on the {plural(found.num_images, 'image')} that both were tested on:")
    print_table(screen.console, rows, numbers_from=1)
    screen.say(
        f"\naccuracy of B minus A: {_points(found.difference)} points; 95% interval {_interval(found.interval_95)}"
    )
    if found.p_value is not None:
        p_value = f"p = {found.p_value:.2g}" if found.p_value >= 1e-4 else "p < 0.0001"
        screen.say(
            f"images that only A classifies correctly: {found.only_a}, only B: {found.only_b} "
            f"(exact McNemar test, {p_value})"
        )
    if found.interval_seeds_95 is not None:
        screen.say(f"over {len(found.seeds)} pairs of seeds: 95% interval {_interval(found.interval_seeds_95)}")
    changed = [change for change in found.classes if change.only_a or change.only_b]
    if changed:
        screen.say("\nclasses in which the answers differ:")
        by_class = [
            (shortened(change.name), f"{change.num_images:,}", f"{change.only_a:g}", f"{change.only_b:g}")
            for change in sorted(changed, key=lambda change: change.only_b - change.only_a)
        ]
        header = ("class", "images", "only A correct", "only B correct")
        print_table(screen.console, [header, *by_class], numbers_from=1)
    screen.say(_verdict(found), style="bold green" if found.better else "yellow")


def _verdict(found: Comparison) -> str:
    if found.better is None:
        return "neither is significantly better: a 95% interval contains 0"
    return f"{'A' if found.better == found.a else 'B'} is better"


def _interval(found: tuple[float, float]) -> str:
    return f"{_points(found[0])} to {_points(found[1])}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"
