"""`--architecture.key value` options -> what the user says about a file of weights."""

from typing import Any

from vitreous.errors import UnknownNameError
from vitreous.recipe import keys

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
