"""Text of an option -> a whole number."""

from collections.abc import Sequence

from cyclopts import Token


def whole_number(_: type, tokens: Sequence[Token]) -> int:
    """Convert the text of an option; the converter of the command-line parser would turn 1.5 into 2.

    Raises:
        ValueError: It is not a whole number, which the parser reports with the name of the option.
    """
    return int(tokens[0].value)
