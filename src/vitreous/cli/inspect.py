"""`vitreous inspect` -> what a run, a data set or a model is."""

from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_facts, print_json, print_table
from vitreous.use.inspect import inspect as look_at


def inspect(
    thing: str,
    /,
    *,
    root: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Look at something before using it; a model by name allocates no weights.

    Args:
        thing: A run folder, a file of anybody's weights, a folder of images, a named set, or a model like
            vit_tiny_patch16_224.
        root: The folder that a table's paths are relative to; default: the table's own.
        as_json: One JSON document instead of tables.
    """
    with Screen(stderr=as_json) as screen:
        found = look_at(thing, screen.listen, root)
    if as_json:
        print_json({"kind": found.kind, "title": found.title, **found.details})
        return
    screen.say(f"{found.kind} {found.title}", style="bold")
    print_facts(screen, found.facts)
    screen.say()
    print_table(screen.console, found.table, numbers_from=1 if found.kind == "data" else 2)
    for note in found.notes:
        screen.say(f"note: {note}", style="yellow")
