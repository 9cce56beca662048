"""`vitreous convert` -> weights in the format of another library."""

from dataclasses import asdict
from pathlib import Path

from vitreous.cli.options import AsJson, Assignments, Switch, architecture_of
from vitreous.cli.screen import Screen, print_json
from vitreous.paths import expanded
from vitreous.use.convert import convert as convert_weights
from vitreous.wording import show


def convert(
    source: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    name: str | None = None,
    weights: str = "auto",
    check: Switch = False,
    as_json: AsJson = False,
    assignments: Assignments = (),
) -> None:
    """Write weights in the format of another library; nothing in the source is executed.

    Args:
        source: A file or folder of weights, a run's model.safetensors, or hf://organization/name.
        to: hf, timm, torchvision, npz, open-clip, vit-pytorch, meta (DINOv2 and DINOv3 as in Meta's code) or vitreous.
        out: File or, for hf, folder to write; default: named after source and format, in the current folder.
        name: Name of the model, such as vit_base_patch16_224, if the file does not contain it. What neither file nor
            name says is set with options such as --architecture.num_heads 4.
        weights: Of the checkpoint of a training run: raw, ema (an average or a teacher), auto (ema if there is one), or
            the name of a part.
        check: Open the result with nothing but what it says, and compare its outputs with the source's on a random
            batch.
        as_json: Print one JSON document instead of text.
        assignments: `--architecture.key value` options, as `main` rewrites them.
    """
    found = convert_weights(
        source,
        to=to,
        out=out and expanded(out),
        name=name,
        architecture=architecture_of(assignments),
        weights=weights,
        check=check,
    )
    if as_json:
        print_json({**asdict(found), "path": str(found.path)})
        return
    with Screen() as screen:
        screen.say_notes(found.notes)
        screen.say(f"{found.path}: {found.parameters:,} parameters as {found.to}", style="bold green")
        if found.unsaid:
            values = ", ".join(f"{key}={show(value)}" for key, value in found.unsaid.items())
            answers = " ".join(f"--architecture.{key} {show(value)}" for key, value in found.unsaid.items())
            screen.say_notes([f"the new file does not say {values}; give that when you open it, e.g. with {answers}"])
        if found.difference is not None and found.scale is not None:
            screen.say(
                f"largest difference on a random batch, read by {found.checked_by}: {found.difference:.2g} "
                f"(largest output {found.scale:.2g})"
            )
