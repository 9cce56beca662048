import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.ranges import ANY_LENGTH, Hint, Interval, check_fields, check_value, rule_of, rules_of

Rate = Annotated[float, Interval("[0, 1)")]


@dataclass(frozen=True)
class Example:
    """A config with one field of each kind."""

    count: Annotated[int, Interval("[1, 2**31)", "use 3")]
    rate: Rate = 0.25
    speed: float = 1.5
    size: Annotated[tuple[int, int], Interval("[1, inf)", "give two")] | None = None
    weights: Annotated[tuple[float, ...], Interval("(0, inf)")] = (0.5, 2.0)
    channels: Annotated[Literal[1, 3], Hint("convert")] = 3
    kind: Literal["plain", "gated"] = "plain"
    token: bool | None = None
    name: Annotated[str, Hint("name it")] = "x"


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 1}, {"count": 2**31 - 1}, {"rate": 0}, {"rate": 0.999}, {"speed": -3}, {"size": (1, 7)},
        {"size": None}, {"weights": ()}, {"weights": (1, 2.5, 3.0)}, {"channels": 1}, {"kind": "gated"},
        {"token": None}, {"token": False}, {"name": "a b"}, {"name": "\u2028"},
    ],
)  # fmt: skip
def test_values_within_their_ranges_are_accepted(changes: dict[str, Any]) -> None:
    check_fields(replace(Example(count=3), **changes), "room")


@pytest.mark.parametrize(
    ("field", "got", "message"),
    [
        ("count", 0, "room.count=0: must be from 1 to 2,147,483,647; use 3"),
        ("count", 2**31, "room.count=2147483648: must be from 1 to 2,147,483,647; use 3"),
        ("count", 2.0, "room.count=2.0: must be a whole number from 1 to 2,147,483,647; use 3"),
        ("count", True, "room.count=True: must be a whole number from 1 to 2,147,483,647; use 3"),
        ("count", None, "room.count=None: must be a whole number from 1 to 2,147,483,647; use 3"),
        ("rate", 1, "room.rate=1: must be in [0, 1); the default is 0.25"),
        ("rate", math.nan, "room.rate=nan: must be in [0, 1); the default is 0.25"),
        ("rate", "0.1", "room.rate='0.1': must be a number in [0, 1); the default is 0.25"),
        ("rate", False, "room.rate=False: must be a number in [0, 1); the default is 0.25"),
        ("speed", math.inf, "room.speed=inf: must be in (-inf, inf); the default is 1.5"),
        ("speed", math.nan, "room.speed=nan: must be in (-inf, inf); the default is 1.5"),
        ("size", (1, 0), "room.size=(1, 0): must be 2 whole numbers, each in [1, inf), or none; give two"),
        ("size", (1, 2, 3), "room.size=(1, 2, 3): must be 2 whole numbers, each in [1, inf), or none; give two"),
        ("size", [1, 2], "room.size=[1, 2]: must be 2 whole numbers, each in [1, inf), or none; give two"),
        ("size", (1, True), "room.size=(1, True): must be 2 whole numbers, each in [1, inf), or none; give two"),
        ("weights", (1.0, 0.0), "room.weights=(1.0, 0.0): must be a list of numbers, each in (0, inf); "),
        ("weights", 1.0, "room.weights=1.0: must be a list of numbers, each in (0, inf); "),
        ("channels", 4, "room.channels=4: must be 1 or 3; convert"),
        ("channels", "3", "room.channels=3: must be 1 or 3; convert"),
        ("kind", "gatd", "room.kind=gatd: must be one of plain, gated; did you mean gated?"),
        ("kind", None, "room.kind=None: must be one of plain, gated; the default is plain"),
        ("kind", ["plain"], "room.kind=['plain']: must be one of plain, gated; did you mean plain?"),
        ("token", 1, "room.token=1: must be true or false, or none; the default is none"),
        ("name", "", "room.name='': must be text that is not blank; name it"),
        ("name", "  ", "room.name='  ': must be text that is not blank; name it"),
        ("name", 3, "room.name=3: must be text that is not blank; name it"),
    ],
)
def test_invalid_value_is_named_with_its_key_range_and_what_to_do(field: str, got: object, message: str) -> None:
    config = replace(Example(count=3), **{field: got})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        check_fields(config, "room")
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, UnknownNameError) is (field == "kind")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1)", (0, 0.5, 0.999), (-1e-9, 1, 1.0, math.nan)),
        ("(0, 1]", (1e-9, 1), (0, 1.001, math.inf)),
        ("(0, inf)", (1e300, 1e-300), (0, math.inf, -1)),
        ("[-3, 2**10]", (-3, 1024), (-3.01, 1025)),
    ],
)
def test_interval_follows_its_notation(text: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    assert all(number in Interval(text) for number in inside)
    assert not any(number in Interval(text) for number in outside)


def test_annotations_of_other_libraries_say_nothing_about_the_range() -> None:
    plain = Annotated[int, Interval("[1, 9]", "use 3")]
    for annotation in (
        Annotated[int, "first", Interval("[1, 9]", "use 3")],
        Annotated[plain, len],
        Annotated[plain, "x", 1],
    ):
        assert rule_of(annotation) == rule_of(plain)
    assert rule_of(Annotated[int, len]) == rule_of(int)
    inner = Annotated[Annotated[Annotated[str, Hint("name it")], len], str]
    assert (rule_of(inner).kind, rule_of(inner).hint) == (str, "name it")


def test_rules_state_defaults_and_which_fields_are_required() -> None:
    rules = rules_of(Example)
    assert [name for name, rule in rules.items() if rule.is_required] == ["count"]
    assert (rules["rate"].default, rules["size"].default, rules["size"].is_optional) == (0.25, None, True)
    assert (rules["size"].length, rules["weights"].length, rules["rate"].length) == (2, ANY_LENGTH, 0)


def test_single_value_can_be_checked_and_shown_as_it_was_typed() -> None:
    check_value("file.rate", 0.5, rule_of(Rate))
    with pytest.raises(ConfigError, match=r"^file\.rate=much: must be a number in \[0, 1\); "):
        check_value("file.rate", "much", rule_of(Rate), shown="much")
