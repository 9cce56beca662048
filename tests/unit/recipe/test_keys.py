from typing import Any

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.plan import show
from vitreous.recipe.run_config import RunConfig


def as_words(value: object) -> str:
    """As one would write it on the command line, with every digit."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ("x" if all(isinstance(item, int) for item in value) else ",").join(map(repr, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_key_comes_back_from_the_text_of_the_command_line(values: dict[str, Any]) -> None:
    for key, value in values.items():
        found = keys.checked({key: as_words(value)})[key]
        assert (found, type(found)) == (value, type(value)), key


def test_every_key_with_a_default_takes_that_default_as_text() -> None:
    for key, value in keys.defaults().items():
        assert keys.checked({key: as_words(value)})[key] == value, key


def test_what_the_plan_shows_can_be_typed(values: dict[str, Any]) -> None:
    for key in ("data.img_size", "data.flip", "model.pool", "data.batch_size", "objective.label_smoothing"):
        assert keys.checked({key: show(values[key])})[key] == values[key]


def test_a_run_that_is_taken_apart_is_put_together_again(config: RunConfig) -> None:
    assert keys.assemble("by-hand", keys.take_apart(config)) == config


def test_image_size_channels_and_classes_of_the_model_are_those_of_the_data(config: RunConfig) -> None:
    assert (config.model.img_size, config.model.in_chans, config.model.num_classes) == ((24, 36), 3, 7)
    assert not {"model.img_size", "model.in_chans", "model.num_classes"} & keys.known_keys().keys()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.img_size", "64", (64, 64)),
        ("data.img_size", "64x48", (64, 48)),
        ("data.img_size", "64,48", (64, 48)),
        ("data.img_size", [64, 48], (64, 48)),
        ("data.img_size", (64, 48), (64, 48)),
        ("data.img_size", 64, (64, 64)),
        ("data.mean", "0.5", (0.5,)),
        ("data.mean", "0.5,0.25,1", (0.5, 0.25, 1.0)),
        ("data.mean", "none", None),
        ("data.mean", None, None),
        ("model.position", "none", "none"),
        ("data.flip", "on", True),
        ("data.flip", "No", False),
        ("data.batch_size", "1_024", 1024),
        ("data.batch_size", 64.0, 64),
        ("data.batch_size", "1e3", 1000),
        ("data.batch_size", " 64 ", 64),
        ("optim.lr", "1e-3", 0.001),
        ("optim.lr", 1, 1.0),
        ("train.seed", "9007199254740993", 9007199254740993),
        ("train.seed", 2**62 + 1, 2**62 + 1),
    ],
)
def test_value_becomes_the_type_of_its_key(key: str, text: object, value: object) -> None:
    found = keys.checked({key: text})[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("data.batch_size", "many", "must be a whole number"),
        ("data.batch_size", "2.5", "must be a whole number"),
        ("data.batch_size", "", "must be a whole number"),
        ("data.batch_size", True, "must be a whole number"),
        ("data.batch_size", [64], "must be a whole number"),
        ("data.batch_size", {"a": 1}, "must be a whole number"),
        ("data.batch_size", None, "must be a whole number"),
        ("data.batch_size", "none", "must be a whole number"),
        ("train.seed", "1e999", "must be a whole number"),
        ("optim.lr", "fast", "must be a number"),
        ("optim.lr", "nan", "must be a number"),
        ("optim.lr", "-inf", "must be a number"),
        ("optim.lr", float("inf"), "must be a number"),
        ("data.flip", "maybe", "must be true or false"),
        ("data.flip", 1, "must be true or false"),
        ("train.device", 3, "must be text"),
        ("train.device", None, "must be text"),
        ("data.img_size", "64x48x3", "must be one or two whole numbers (height x width); e.g. 64 or 64x48"),
        ("data.img_size", "64x", "must be one or two whole numbers (height x width); e.g. 64 or 64x48"),
        ("data.img_size", "6.5", "must be one or two whole numbers (height x width); e.g. 64 or 64x48"),
        ("data.img_size", [], "must be one or two whole numbers (height x width); e.g. 64 or 64x48"),
        ("data.mean", "dark", "must be a list, each a number; e.g. 0.5 or 0.5,0.4,0.3"),
        ("data.std", [0.5, None], "must be a list, each a number; e.g. 0.5 or 0.5,0.4,0.3"),
    ],
)
def test_wrong_type_is_told_with_key_and_value(key: str, got: object, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.checked({key: got})
    assert str(caught.value).startswith(f"{key}={got}: {rule}")
    assert "; " in str(caught.value)


@pytest.mark.parametrize(
    ("key", "got", "message"),
    [
        ("optim.lrr", "1", "optim.lrr=1: no such key; did you mean optim.lr?"),
        ("optm.lr", "1", "optm.lr=1: no such key; did you mean optim.lr?"),
        ("data.batchsize", 8, "data.batchsize=8: no such key; did you mean data.batch_size?"),
        ("model.pool", "men", "model.pool=men: no such choice; did you mean mean?"),
        ("model.position", None, "model.position=None: no such choice; did you mean none?"),
        ("data.fit", 7, "data.fit=7: no such choice; use one of crop, pad, squash"),
    ],
)
def test_unknown_key_or_choice_suggests_the_nearest(key: str, got: object, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        keys.checked({key: got})
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "got"), [("img_size", 64), ("in_chans", 3), ("num_classes", 12)])
def test_what_the_data_decides_points_to_the_key_of_the_data(name: str, got: int) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.checked({f"model.{name}": got})
    assert str(caught.value) == f"model.{name}={got}: is decided by the data; set data.{name}"


def test_keys_that_are_left_open_are_all_named(values: dict[str, Any]) -> None:
    del values["model.depth"], values["data.num_classes"], values["optim.lr"]
    with pytest.raises(ConfigError) as caught:
        keys.assemble("mine", values)
    assert str(caught.value) == (
        "recipe=mine: leaves data.num_classes, model.depth open; set each in the file or as --room.key"
    )


def test_values_that_do_not_go_together_are_told(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.patch_size=7: does not divide data\.img_size=24x36"):
        keys.assemble("mine", values | {"model.patch_size": 7})
