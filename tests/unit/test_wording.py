"""Words of messages."""

import pytest

from vitreous.wording import duration


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
