"""Counts and names -> words in a sentence."""

from collections.abc import Sequence


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
