"""`vitreous convert` -> weights in the format of another library."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json
from vitreous.errors import UnknownNameError
from vitreous.paths import expanded
from vitreous.recipe import keys
from vitreous.use.convert import convert as convert_weights


def convert(
    source: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    name: str | None = None,
    check: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    assignments: Annotated[
        tuple[str, ...], Parameter(name="--set", show=False, negative="", consume_multiple=False)
    ] = (),
) -> None:
    """Write weights in the format of another library; nothing in the source is executed.

    Args:
        source: A file or folder of weights, a run's model.safetensors, or hf://organization/name.
        to: hf, timm, torchvision, npz, vit-pytorch or vitreous.
        out: File or, for hf, folder to write; default: named after source and format, in the current folder.
        name: Name of the model, such as vit_base_patch16_224, if the file does not contain it.
        check: Open the result and compare its outputs with the source's on a random batch.
        as_json: Print one JSON document instead of text.
        assignments: `--model.key value` options, as `main` rewrites them; for what neither file nor name specifies.
    """
    found = convert_weights(
        source, to=to, out=out and expanded(out), name=name, architecture=_architecture(assignments), check=check
    )
    if as_json:
        print_json({**asdict(found), "path": str(found.path)})
        return
    with Screen() as screen:
        screen.say(f"{found.path}: {found.parameters:,} parameters as {found.to}", style="bold green")
        if found.difference is not None and found.scale is not None:
            screen.say(
                f"largest difference on a random batch, read by {found.checked_by}: {found.difference:.2g} "
                f"(largest output {found.scale:.2g})"
            )


def _architecture(assignments: tuple[str, ...]) -> dict[str, object]:
    """Return the checked values of `model.key=value` assignments, by key without `model.`."""
    values = dict(assignment.split("=", 1) for assignment in assignments)
    for key, got in values.items():
        if not key.startswith("model."):
            raise UnknownNameError(f"{key}={got}: not a key of the model; use --model.key, e.g. --model.num_heads 4")
    return {key.removeprefix("model."): value for key, value in keys.checked(values).items()}
