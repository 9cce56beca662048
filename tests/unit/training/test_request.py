from pathlib import Path

import pytest

from vitreous.errors import ConfigError
from vitreous.recipe.keys import architecture_in, rules
from vitreous.training.request import OPTION_KEYS, TrainRequest, is_series, parse_budget, with_options


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
    assert str(caught.value) == f"budget={text if text != '' else repr(text)}: {rule}"


def test_options_become_keys_and_paths_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home-of-a-test")
    given = TrainRequest(data="x", values={"optim.lr": "3e-4"}, out=Path("~/run"))
    request = with_options(given, {"lr": 0.0003, "img_size": 8, "seed": 0, "device": None}, "10m")
    assert request.values == {"optim.lr": 0.0003, "data.img_size": 8, "train.seed": 0, "train.budget_s": 600}
    assert (request.data, request.out, request.resume) == ("x", Path("/home-of-a-test/run"), None)
    assert given.values == {"optim.lr": "3e-4"}


def test_architecture_is_gathered_in_one_key_and_can_be_read_back() -> None:
    given = {"architecture.img_size": "8x24", "architecture.head_dim": "none", "architecture.mlp_ratio": 13 / 3}
    values = with_options(TrainRequest(values={**given, "optim.lr": 0.1}), {}).values
    assert values.keys() == {"optim.lr", "train.pretrained_as"}
    read = architecture_in(str(values["train.pretrained_as"]))
    assert read == {"img_size": (8, 24), "head_dim": None, "mlp_ratio": 13 / 3}


def test_every_option_sets_an_existing_key() -> None:
    assert set(OPTION_KEYS.values()) <= set(rules())


@pytest.mark.parametrize(
    ("values", "options", "budget", "message"),
    [
        (
            {"optim.lr": 0.3},
            {"lr": 0.1},
            None,
            "optim.lr=0.3: lr=0.1 sets the same key to another value; give only one",
        ),
        ({}, {"epochs": 7}, "3ep", "train.epochs=7: budget=3ep sets the same key to another value; give only one"),
        ({"train.budget_s": 5}, {}, 9, "train.budget_s=5: budget=9 sets the same key to another value; give only one"),
    ],
)
def test_two_values_for_one_key_are_an_error(
    values: dict[str, object], options: dict[str, object], budget: str | float | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_options(TrainRequest(values=values), options, budget)
    assert str(caught.value) == message


def test_series_is_requested_by_folds_seeds_or_the_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "series.json").touch()
    assert is_series(TrainRequest(folds=2))
    assert is_series(TrainRequest(seeds=3))
    assert is_series(TrainRequest(resume=tmp_path))
    assert not is_series(TrainRequest(resume=tmp_path / "run"))
    assert not is_series(TrainRequest(data="x"))
