"""`vitreous inspect` -> what a run, a data set or a model is, and what is wrong with the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_facts, print_json, print_table
from vitreous.data.doctor.findings import Finding, Sample
from vitreous.training.machine.device import resolve_device
from vitreous.use.inspect import DataOptions
from vitreous.use.inspect import inspect as look_at

_MOST_NAMED = 3
"""Groups of samples that a finding names on the screen; `--json` and `--html` have more."""
_MOST_IN_GROUP = 4
_BAR_CHARACTERS = 40
_COLOURS = {"fault": "bold red", "warning": "yellow", "note": "cyan"}


def inspect(
    thing: str,
    /,
    *,
    root: str | None = None,
    run: Path | None = None,
    html: Path | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Look at something before using it; a model by name allocates no weights.

    Data is examined: every image is decoded, and what is wrong is told, worst first, with what to do about it.

    Args:
        thing: A run folder, a file of anybody's weights, a folder of images, a named set, or a model like
            vit_tiny_patch16_224.
        root: The folder that a table's paths are relative to; default: the table's own.
        run: A run whose features find doubtful labels better than thumbnails do, if it was not trained on them.
        html: A file for a page with the pictures of each finding and contact sheets of the classes.
        device: Where the run's model computes: auto, cpu, cuda, cuda:1 or mps.
        as_json: One JSON document instead of tables.
    """
    with Screen(stderr=as_json) as screen:
        found = look_at(thing, screen.listen, DataOptions(root, run, html, resolve_device(device)))
    if as_json:
        print_json({"kind": found.kind, "title": found.title, **found.details})
        return
    screen.say(f"{found.kind} {found.title}", style="bold")
    print_facts(screen, found.facts)
    screen.say()
    print_table(screen.console, found.table, numbers_from=1 if found.kind == "data" else 2)
    for title, counts in found.histograms.items():
        _print_histogram(screen, title, counts)
    for note in found.notes:
        screen.say(f"note: {note}", style="yellow")
    for number, finding in enumerate(found.findings, 1):
        _print_finding(screen, number, finding)
    if found.kind == "data":
        nothing = "\nnothing is wrong that could be seen"
        rest = "" if html else "; --html FILE shows them" if any(finding.samples for finding in found.findings) else ""
        screen.say(f"\nfindings: {len(found.findings)}, worst first{rest}" if found.findings else nothing, style="bold")
    if html is not None:
        screen.say(f"pictures: {html}")


def _print_finding(screen: Screen, number: int, finding: Finding) -> None:
    screen.say(f"\n{number}. {finding.severity}: {finding.title}", style=_COLOURS[finding.severity])
    if finding.detail:
        screen.say(f"   {finding.detail}")
    screen.say(f"   -> {finding.advice}")
    for group in finding.samples[:_MOST_NAMED]:
        rest = f" and {len(group) - _MOST_IN_GROUP} more" if len(group) > _MOST_IN_GROUP else ""
        screen.say(f"   {' = '.join(map(_named, group[:_MOST_IN_GROUP]))}{rest}", style="dim")
    if len(finding.samples) > _MOST_NAMED:
        screen.say(f"   and {len(finding.samples) - _MOST_NAMED:,} more", style="dim")


def _named(sample: Sample) -> str:
    return f"{sample.where} ({sample.remark})" if sample.remark else sample.where


def _print_histogram(screen: Screen, title: str, counts: Mapping[str, int]) -> None:
    screen.say()
    largest = max(counts.values(), default=0)
    rows = [(name, f"{count:,}", "█" * round(_BAR_CHARACTERS * count / largest)) for name, count in counts.items()]
    width, digits = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    screen.say(title, style="bold")
    for name, count, bar in rows:
        screen.say(f"  {name:<{width}}  {count:>{digits}}  {bar}".rstrip())
