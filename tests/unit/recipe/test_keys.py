from typing import Any

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.wording import show


def as_words(value: object) -> str:
    """The value as it is written on the command line, with all digits."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ("x" if all(isinstance(item, int) for item in value) else ",").join(map(repr, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_key_can_be_set_as_text_of_the_command_line(values: dict[str, Any]) -> None:
    for key, value in values.items():
        found = keys.checked({key: as_words(value)})[key]
        assert (found, type(found)) == (value, type(value)), key


def test_every_default_can_be_given_as_text() -> None:
    for key, value in keys.defaults().items():
        assert keys.checked({key: as_words(value)})[key] == value, key


def test_values_shown_in_the_plan_can_be_typed(values: dict[str, Any]) -> None:
    for key in ("data.img_size", "data.flip", "model.pool", "data.batch_size", "objective.label_smoothing"):
        assert keys.checked({key: show(values[key])})[key] == values[key]


def test_assemble_restores_a_config_that_was_taken_apart(config: RunConfig) -> None:
    assert keys.assemble("by-hand", keys.take_apart(config)) == config


def test_model_takes_image_size_channels_and_classes_from_the_data(config: RunConfig) -> None:
    assert (config.model.img_size, config.model.in_chans, config.model.num_classes) == ((24, 36), 3, 7)
    assert not {"model.img_size", "model.in_chans", "model.num_classes"} & keys.rules().keys()


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
def test_value_is_converted_to_the_type_of_its_key(key: str, text: object, value: object) -> None:
    found = keys.checked({key: text})[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("data.batch_size", "many", "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", "2.5", "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", True, "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", [64], "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", {"a": 1}, "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", None, "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", "none", "must be a whole number from 1 to 2,147,483,647"),
        ("data.batch_size", "0", "must be from 1 to 2,147,483,647"),
        ("train.seed", "1e999", "must be a whole number from 0 to 18,446,744,073,709,551,615"),
        ("optim.lr", "fast", "must be a number in (0, inf)"),
        ("optim.lr", "nan", "must be a number in (0, inf)"),
        ("optim.lr", "-inf", "must be a number in (0, inf)"),
        ("optim.lr", float("inf"), "must be in (0, inf)"),
        ("optim.lr", "-1", "must be in (0, inf)"),
        ("data.flip", "maybe", "must be true or false"),
        ("data.flip", 1, "must be true or false"),
        ("train.device", 3, "must be text"),
        ("train.device", None, "must be text"),
        ("data.img_size", "64x48x3", "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.img_size", "64x", "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.img_size", "6.5", "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.img_size", "0", "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.img_size", [], "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.img_size", None, "must be 2 whole numbers, each from 1 to 2,147,483,647"),
        ("data.mean", "dark", "must be a list of numbers, each in [0, 1], or none"),
        ("data.std", [0.5, None], "must be a list of numbers, each in (0, inf), or none"),
    ],
)
def test_value_of_the_wrong_type_or_out_of_range_is_refused(key: str, got: object, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.checked({key: got})
    assert str(caught.value).startswith(f"{key}={got}: {rule}")
    assert "; " in str(caught.value)


def test_blank_text_is_shown_in_quotes() -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.batch_size='': must be a whole number from 1 to 2,147,483,647; use 64"
    ):
        keys.checked({"data.batch_size": ""})


@pytest.mark.parametrize(
    ("key", "got", "message"),
    [
        ("optim.lrr", "1", "optim.lrr=1: no such key; did you mean optim.lr?"),
        ("optm.lr", "1", "optm.lr=1: no such key; did you mean optim.lr?"),
        ("data.batchsize", 8, "data.batchsize=8: no such key; did you mean data.batch_size?"),
        ("lr", 3, "lr=3: no such key; did you mean optim.lr?"),
        ("train.lr", 3, "train.lr=3: no such key; did you mean optim.lr?"),
        ("lrr", 3, "lrr=3: no such key; did you mean optim.lr?"),
        ("batchsize", 8, "batchsize=8: no such key; did you mean data.batch_size?"),
        ("learning_rate", 3, "learning_rate=3: no such key; did you mean optim.lr?"),
        ("accumulate", 4, "accumulate=4: no such key; did you mean train.micro_batches?"),
        ("train.accumulate", 4, "train.accumulate=4: was renamed; use train.micro_batches"),
        ("zebra", "red", "zebra=red: no such key; see `vitreous train --help-keys` for all keys"),
        (
            "model.pool",
            "men",
            "model.pool=men: must be one of token, mean, max, token_mean, map, sequence; did you mean mean?",
        ),
        (
            "model.position",
            None,
            "model.position=None: must be one of learned, sinusoidal, sincos2d, sincos2d_big_vision, none; did you "
            "mean none?",
        ),
        ("data.fit", 7, "data.fit=7: must be one of crop, squash, pad; the default is crop"),
    ],
)
def test_unknown_key_or_choice_has_a_suggestion(key: str, got: object, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        keys.checked({key: got})
    assert str(caught.value) == message


def test_name_that_several_rooms_have_suggests_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = keys.rules() | {"train.lr": keys.rules()["optim.lr"]}
    monkeypatch.setattr(keys, "rules", lambda: found)
    with pytest.raises(UnknownNameError, match=r"^lr=3: no such key; did you mean optim\.lr or train\.lr\?$"):
        keys.checked({"lr": 3})


@pytest.mark.parametrize("key", [*keys.RENAMED.values(), *keys.OTHER_NAMES.values()])
def test_suggested_keys_exist(key: str) -> None:
    assert key in keys.rules()


@pytest.mark.parametrize("name", [*keys.RENAMED, *keys.OTHER_NAMES])
def test_former_and_foreign_names_are_not_keys(name: str) -> None:
    assert not {name, name.partition(".")[2]} & {*keys.rules(), *(k.partition(".")[2] for k in keys.rules())}


@pytest.mark.parametrize(("name", "got"), [("img_size", 64), ("in_chans", 3), ("num_classes", 12)])
def test_key_decided_by_the_data_points_to_the_key_of_the_data(name: str, got: int) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.checked({f"model.{name}": got})
    assert str(caught.value) == f"model.{name}={got}: is decided by the data; set data.{name}"


def test_missing_keys_are_all_listed(values: dict[str, Any]) -> None:
    del values["model.depth"], values["data.num_classes"], values["optim.lr"]
    with pytest.raises(ConfigError) as caught:
        keys.assemble("mine", values)
    assert str(caught.value) == (
        "recipe=mine: does not set data.num_classes, model.depth; set each in the file or as --section.key value"
    )


def test_values_that_contradict_each_other_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.patch_size=7: does not divide data\.img_size=24x36"):
        keys.assemble("mine", values | {"model.patch_size": 7})
