"""Text of an option -> its value: the types of the options that several commands have."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token


def whole_number(_: type, tokens: Sequence[Token]) -> int:
    """Convert the text of an option; the converter of the command-line parser would turn 1.5 into 2.

    Raises:
        ValueError: It is not a whole number, which the parser reports with the name of the option.
    """
    return int(tokens[0].value)


Count = Annotated[int, Parameter(converter=whole_number)]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Assignments = Annotated[tuple[str, ...], Parameter(name="--set", show=False, negative="", consume_multiple=False)]
"""`--room.key value` options, as `main` rewrites them."""
