"""Text from a file of unknown origin -> text that is safe to print: one line, short, no terminal control codes."""

from collections.abc import Iterable


def printable(text: str, max_chars: int = 120) -> str:
    """Escape and shorten untrusted text, so that a message can quote it.

    Args:
        text: The text, e.g. the name of a tensor in a downloaded file.
        max_chars: Longer text is cut and ends in `…`.
    """
    escaped = text if text.isprintable() else ascii(text)[1:-1]
    return escaped if len(escaped) <= max_chars else f"{escaped[:max_chars]}…"


def printable_list(names: Iterable[str], max_names: int = 8) -> str:
    """Join untrusted names: sorted, each made printable, the rest counted (`a, b and 3 more`).

    Trusted names that have a meaningful order are joined by `vitreous.wording.listed`.

    Args:
        names: In any order.
        max_names: How many to show.
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - max_names:,} more" if len(ordered) > max_names else ""
    return ", ".join(map(printable, ordered[:max_names])) + more


def printable_error(error: Exception) -> str:
    """Return the message of a parser's error on one short line; the name of its class if it has no message."""
    return printable(" ".join(str(error).split()), 200) or type(error).__name__
