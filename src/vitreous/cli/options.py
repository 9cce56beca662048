"""Text of an option -> its value: the types of the options that several commands have."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from vitreous.errors import UnknownNameError
from vitreous.recipe import keys


def _whole_number(_: type, tokens: Sequence[Token]) -> int:
    """Convert the text of an option; the converter of the command-line parser would turn 1.5 into 2.

    Raises:
        ValueError: It is not a whole number, which the parser reports with the name of the option.
    """
    return int(tokens[0].value)


Count = Annotated[int, Parameter(converter=_whole_number)]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Assignments = Annotated[tuple[str, ...], Parameter(name="--set", show=False, negative="", consume_multiple=False)]
"""`--room.key value` options, as `main` rewrites them."""

_FOR_COMPLETION = Parameter(show_choices=False)
"""For options that take more than the names that a shell completes; the help text describes all."""
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"] | str, _FOR_COMPLETION]
Precision = Annotated[Literal["auto", "fp32", "tf32", "bf16"] | str, _FOR_COMPLETION]
TaskName = Annotated[Literal["single", "multilabel"] | str, _FOR_COMPLETION]
RecipeName = Annotated[
    Literal["digits", "small-images", "small-photos", "pretrain", "pretrain-finetune", "fine-tune", "linear-probe",
            "distill", "deit", "deit3", "big-vision-s16"] | str, _FOR_COMPLETION,
]  # fmt: skip
MethodName = Annotated[Literal["mae", "simmim", "lejepa"] | str, _FOR_COMPLETION]
ModelName = Annotated[
    Literal["vit_pico", "vit_nano", "vit_micro", "vit_mini", "vit_tiny", "vit_xsmall", "vit_small", "vit_medium",
            "vit_base", "vit_large"] | str, _FOR_COMPLETION,
]  # fmt: skip
BackboneName = Annotated[
    Literal["auto", "none", "dinov2-small", "dinov2-base", "augreg-tiny", "augreg-small", "augreg-base", "deit3-small",
            "deit3-base", "dinov3-small"] | str, _FOR_COMPLETION,
]  # fmt: skip

_ROOMS = ("architecture", "model")
"""`--model.key` means the same; it is the older spelling."""


def architecture_of(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return the checked values of `architecture.key=value` assignments, by field of ModelConfig."""
    values: dict[str, object] = {}
    for key, _, got in (assignment.partition("=") for assignment in assignments):
        room, _, name = key.partition(".")
        if room not in _ROOMS:
            raise UnknownNameError(
                f"{key}={got}: not a property of the model; use --architecture.key, e.g. --architecture.num_heads 4"
            )
        values[name] = got
    return keys.architecture(values)
