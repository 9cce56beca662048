"""Counts, names, values and text of unknown origin -> words in a message: short, on one line, no control codes."""

from collections.abc import Iterable, Sequence
from numbers import Number
from pathlib import PurePath
from reprlib import Repr

_MOST_BITS = 128


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count and its noun, e.g. `1 image` or `1,234 images`; `many` is `one` with an s by default."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 4, count: int | None = None) -> str:
    """Join names in their order to `a, b and c`, or to `a, b, c, d and 7 more` if there are more than `most`.

    `names` may be only the first ones of `count`.
    """
    shown = list(names[:most])
    rest = (len(names) if count is None else count) - len(shown)
    if rest > 0:
        return f"{', '.join(shown)} and {rest:,} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def shortened(name: str, most: int = 40) -> str:
    """Return a name on one line, without its middle if it has more than `most` characters: `first words…last words`."""
    line = " ".join(name.split())
    return line if len(line) <= most else f"{line[: most - most // 3 - 1]}…{line[len(line) - most // 3 :]}"


def duration(seconds: float) -> str:
    """Return a time as text: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def show(value: object) -> str:
    """Return a value as it is written on the command line, e.g. `24x36`, `true`, `0.001` or `none`."""
    if isinstance(value, tuple):
        return ("x" if all(isinstance(item, int) for item in value) else ",").join(map(show, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def printable(text: str, max_chars: int = 120) -> str:
    """Escape and shorten untrusted text, so that a message can quote it.

    More than `max_chars` are cut off, and `…` is added.
    """
    escaped = text if text.isprintable() else ascii(text)[1:-1]
    return escaped if len(escaped) <= max_chars else f"{escaped[:max_chars]}…"


def visible(text: str) -> str:
    """Return all of a text with control characters, which file names may contain, as escapes; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def printable_value(value: object) -> str:
    """Return how a message shows a value that a user gave: as Python writes it if it is short and of a built-in type.

    Long values are shortened. Other objects may print many lines, so only their type is named.
    """
    return printable(_Brief().repr(value))


class _Brief(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 120

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= _MOST_BITS else f"a number of {x.bit_length():,} bits"

    def repr_instance(self, x: object, level: int) -> str:
        if x is None or isinstance(x, bytes):
            return repr(x)
        return str(x) if isinstance(x, Number | PurePath) else f"<{type(x).__name__}>"


def printable_list(names: Iterable[str], max_names: int = 8) -> str:
    """Join untrusted names: sorted, each made printable, the rest counted (`a, b and 3 more`).

    Trusted names that have a meaningful order are joined by `listed`.
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - max_names:,} more" if len(ordered) > max_names else ""
    return ", ".join(map(printable, ordered[:max_names])) + more


def printable_error(error: Exception) -> str:
    """Return the message of a parser's error on one short line; the name of its class if it has no message."""
    return printable(" ".join(str(error).split()), 200) or type(error).__name__
