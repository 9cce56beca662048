"""Words of messages, and values of unknown origin in them."""

from pathlib import Path

import numpy as np
import pytest

from vitreous.wording import duration, printable, printable_error, printable_list, printable_value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration_is_written_in_the_largest_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_untrusted_text_is_escaped_and_shortened() -> None:
    assert printable("tête.weight") == "tête.weight"
    assert printable("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert printable("x" * 500, 10) == "xxxxxxxxxx…"


def test_list_of_names_is_sorted_and_shortened() -> None:
    assert printable_list(["b", "a", "d", "c"], 2) == "a, b and 2 more"
    assert printable_list({"b", "a"}, 2) == "a, b"
    assert printable_list(["z\n", "a"]) == r"a, z\n"


def test_error_is_one_short_line() -> None:
    assert printable_error(ValueError("first\n  second\x1b[2J")) == r"first second\x1b[2J"
    assert printable_error(KeyError()) == "KeyError"
    assert len(printable_error(ValueError("x" * 5000))) == 201


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        (0.5, "0.5"),
        ("a\nb", r"'a\nb'"),
        ((8, 0), "(8, 0)"),
        ({"a": 1}, "{'a': 1}"),
        (10**400, "a number of 1,329 bits"),
        ([10**5_000], "[a number of 16,610 bits]"),
        (np.int64(3), "3"),
        (np.zeros(3), "<ndarray>"),
        (Path("a b"), "a b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_of_any_type_is_shown_on_one_short_line(value: object, shown: str) -> None:
    assert printable_value(value) == shown
    assert len(printable_value(["x" * 900] * 900)) < 200
