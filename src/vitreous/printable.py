"""Text or values of unknown origin -> text that is safe to print: one line, short, no terminal control codes."""

from collections.abc import Iterable
from numbers import Number
from pathlib import PurePath
from reprlib import Repr

_MOST_BITS = 128


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

    Trusted names that have a meaningful order are joined by `vitreous.wording.listed`.
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - max_names:,} more" if len(ordered) > max_names else ""
    return ", ".join(map(printable, ordered[:max_names])) + more


def printable_error(error: Exception) -> str:
    """Return the message of a parser's error on one short line; the name of its class if it has no message."""
    return printable(" ".join(str(error).split()), 200) or type(error).__name__
