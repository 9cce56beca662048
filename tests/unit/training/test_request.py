import pytest

from vitreous.errors import ConfigError
from vitreous.training.request import parse_budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0), ("90sec", 90.0), ("10m", 600.0), ("10min", 600.0), ("10 min", 600.0), ("2h", 7200.0),
        ("1h30m", 5400.0), ("1h 30m", 5400.0), (" 1 H 30 Min ", 5400.0), ("1.5h", 5400.0), ("2d", 172_800.0),
        ("45", 45.0), (45, 45.0), (0.5, 0.5),
    ],
)  # fmt: skip
def test_time_is_parsed_into_seconds(text: str | float, seconds: float) -> None:
    assert parse_budget(text) == {"train.budget_s": seconds}


@pytest.mark.parametrize(("text", "epochs"), [("30ep", 30.0), ("30 ep", 30.0), ("2.5epochs", 2.5), ("1 epoch", 1.0)])
def test_number_of_epochs_is_parsed(text: str, epochs: float) -> None:
    assert parse_budget(text) == {"train.epochs": epochs}


@pytest.mark.parametrize(
    "text",
    ["", "soon", "10 parsecs", "-5m", -5, "0", "0s", "0ep", "m10", "1h30", "1h30ep", "1,5h", "10m!", True, float("nan"),
     float("inf")],
)  # fmt: skip
def test_other_text_is_refused_with_the_value_given(text: str | float) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_budget(text)
    rule = "must be a time or a number of epochs above 0; e.g. 90s, 10m, 1h30m or 30ep"
    assert str(caught.value) == f"budget={text}: {rule}"
