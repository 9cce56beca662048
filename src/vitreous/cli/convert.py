"""`vitreous convert` -> weights as another library names them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json
from vitreous.errors import UnknownNameError
from vitreous.recipe import keys
from vitreous.use.convert import convert as convert_weights


def convert(
    source: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    name: str | None = None,
    check: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    assignments: Annotated[
        tuple[str, ...], Parameter(name="--set", show=False, negative="", consume_multiple=False)
    ] = (),
) -> None:
    """Write weights as another library names them; nothing in the source is executed.

    Args:
        source: A file of weights, a folder of them, a run's model.safetensors, or hf://organisation/name.
        to: hf, timm, torchvision, npz, vit-pytorch or vitreous.
        out: File or, for hf, folder to write; default: the source's name and the format's, here.
        name: What the model is, e.g. vit_base_patch16_224, where the file does not say.
        check: Open what was written and compare its outputs on a random batch.
        as_json: One JSON document instead of text.
        assignments: `main` spells `--model.key value` so: what neither file nor name tells.
    """
    found = convert_weights(
        source, to=to, out=out and out.expanduser(), name=name, architecture=_architecture(assignments), check=check
    )
    if as_json:
        print_json({**asdict(found), "path": str(found.path)})
        return
    with Screen() as screen:
        screen.say(f"{found.path}: {found.parameters:,} parameters as {found.to}", style="bold green")
        if found.difference is not None and found.scale is not None:
            screen.say(
                f"largest difference on a random batch, read by {found.checked_by}: {found.difference:.2g} "
                f"(outputs reach {found.scale:.2g})"
            )


def _architecture(assignments: tuple[str, ...]) -> dict[str, object]:
    """`model.key=value` words as checked values by key."""
    values = dict(assignment.split("=", 1) for assignment in assignments)
    for key, got in values.items():
        if not key.startswith("model."):
            raise UnknownNameError(f"{key}={got}: no key of a model; use --model.key, e.g. --model.num_heads 4")
    return {key.removeprefix("model."): value for key, value in keys.checked(values).items()}
