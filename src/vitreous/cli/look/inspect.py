"""`vitreous inspect` -> what a run, a data set or a model contains, and what is wrong with the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from vitreous.cli.options import AsJson, Assignments, Switch, architecture_of
from vitreous.cli.screen import Screen, print_facts, print_json, print_table
from vitreous.data.doctor.findings import Finding, Sample
from vitreous.model.weights.table import Hints
from vitreous.training.machine.device import resolve_device
from vitreous.use.inspect import DataOptions
from vitreous.use.inspect import inspect as inspect_thing
from vitreous.wording import shortened

_MOST_GROUPS = 3
"""Maximum number of groups of samples per finding on the screen; `--json` and `--html` have more."""
_MOST_IN_GROUP = 4
_BAR_CHARACTERS = 40
_COLORS = {"fault": "bold red", "warning": "yellow", "note": "cyan"}


def inspect(
    thing: str,
    /,
    *,
    root: str | None = None,
    pretrained: str | None = None,
    html: Path | None = None,
    fix: Path | None = None,
    labels: Switch = False,
    device: str = "auto",
    weights: str = "auto",
    as_json: AsJson = False,
    assignments: Assignments = (),
) -> None:
    """Describe a run, a weights file, a data set or a named model; for a named model, no weights are allocated.

    For data, every image is decoded and problems are reported, most severe first, each with advice on how to fix it.

    Args:
        thing: A run folder, a weights file in any supported format, a folder of images, a named data set, or a model
            like vit_tiny_patch16_224.
        root: The folder of the images of a table or an export; default: that of the file.
        pretrained: A run that was not trained on this data, weights in any supported format, or
            hf://organization/name; features find mislabeled images better than thumbnails do, and outliers.
        html: File for a page with the pictures of each finding and contact sheets of the classes.
        fix: CSV file to create with proposed corrections, to be edited and passed to `train --data.corrections`.
        labels: Check the images of a run or series, with labels judged by its predictions; so do --html and --fix.
        device: Device for the model of --pretrained or of a run: auto, cpu, cuda, cuda:1 or mps.
        weights: For the checkpoint of a training run: raw, ema (an average or a teacher), auto (ema if there is one),
            or the name of a part. What no tensor shows is set with options such as --architecture.num_heads 4.
        as_json: Print one JSON document instead of tables.
        assignments: `--architecture.key value` options, as `main` rewrites them.
    """
    hints = Hints(architecture=architecture_of(assignments), weights=weights)
    with Screen(stderr=as_json) as screen:
        options = DataOptions(root, pretrained, html, fix, labels, resolve_device(device))
        found = inspect_thing(thing, screen.listen, options, hints)
    if as_json:
        print_json({"kind": found.kind, "title": found.title, **found.details})
        return
    screen.say(f"{found.kind} {found.title}", style="bold")
    print_facts(screen, found.facts)
    screen.say()
    rows = [(shortened(first), *rest) for first, *rest in found.table] if found.kind == "data" else found.table
    print_table(screen.console, rows, numbers_from=1 if found.kind == "data" else 2)
    for title, counts in found.histograms.items():
        _print_histogram(screen, title, counts)
    for note in found.notes:
        screen.say(note if note.startswith(("open: ", "cannot be opened: ")) else f"note: {note}", style="yellow")
    for number, finding in enumerate(found.findings, 1):
        _print_finding(screen, number, finding)
    if found.kind == "data":
        _print_summary(screen, found.findings, has_page=html is not None)
    if html is not None:
        screen.say(f"pictures: {html}")
    if fix is not None:
        screen.say(f"proposed corrections: {fix}; edit it, then train with --data.corrections {quote(str(fix))}")


def _print_finding(screen: Screen, number: int, finding: Finding) -> None:
    screen.say(f"\n{number}. {finding.severity}: {finding.title}", style=_COLORS[finding.severity])
    if finding.detail:
        screen.say(f"   {finding.detail}")
    screen.say(f"   -> {finding.advice}")
    for group in finding.samples[:_MOST_GROUPS]:
        rest = f" and {len(group) - _MOST_IN_GROUP} more" if len(group) > _MOST_IN_GROUP else ""
        screen.say(f"   {' = '.join(map(_described, group[:_MOST_IN_GROUP]))}{rest}", style="dim")
    if len(finding.samples) > _MOST_GROUPS:
        screen.say(f"   and {len(finding.samples) - _MOST_GROUPS:,} more", style="dim")


def _print_summary(screen: Screen, findings: Sequence[Finding], *, has_page: bool) -> None:
    if not findings:
        screen.say("\nno problems found", style="bold")
        return
    has_pictures = any(finding.samples for finding in findings)
    rest = "; --html FILE shows the pictures" if has_pictures and not has_page else ""
    screen.say(f"\nfindings: {len(findings)}, most severe first{rest}", style="bold")


def _described(sample: Sample) -> str:
    return f"{sample.where} ({sample.remark})" if sample.remark else sample.where


def _print_histogram(screen: Screen, title: str, counts: Mapping[str, int]) -> None:
    screen.say()
    largest = max(counts.values(), default=0)
    rows = [(name, f"{count:,}", "█" * round(_BAR_CHARACTERS * count / largest)) for name, count in counts.items()]
    width, digits = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    screen.say(title, style="bold")
    for name, count, bar in rows:
        screen.say(f"  {name:<{width}}  {count:>{digits}}  {bar}".rstrip())
