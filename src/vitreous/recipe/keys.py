"""`room.key` names and untyped values (YAML, command line) -> a checked RunConfig, and back.

One flat dictionary of dotted keys is what recipes fill, files hold and the command line overrides.
"""

import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import FORMER_NAMES, ModelConfig
from vitreous.objective.config import ObjectiveConfig
from vitreous.optim.config import OptimConfig
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig, TrainConfig

ROOMS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}

RENAMED: dict[str, str] = {
    "data.test_share": "data.test_ratio",
    "data.val_share": "data.val_ratio",
    **{f"model.{old}": f"model.{new}" for old, new in FORMER_NAMES.items()},
    "train.accumulate": "train.micro_batches",
    "train.attention": "train.attention_kernel",
    "train.check": "train.overfit_one_batch",
    "train.patience": "train.patience_ratio",
}
"""Former names of keys -> today's. Files of old runs are read by it."""


@cache
def known_keys() -> dict[str, Any]:
    """Every dotted key that a user may set, with its type."""
    keys: dict[str, Any] = {}
    for room, config in ROOMS.items():
        hints = typing.get_type_hints(config)
        keys |= {f"{room}.{field.name}": hints[field.name] for field in _settable(room)}
    return keys


@cache
def defaults() -> dict[str, Any]:
    """The value of each key that has one regardless of data and recipe."""
    return {
        f"{room}.{field.name}": field.default
        for room in ROOMS
        for field in _settable(room)
        if field.default is not MISSING
    }


def checked(values: Mapping[str, object]) -> dict[str, Any]:
    """Untyped values by dotted key, each turned into the type of its key.

    Raises:
        UnknownNameError: A key that does not exist; the nearest one is suggested.
        ConfigError: A value that is not of its key's type, or a key that another one decides.
    """
    return {key: _typed(key, value) for key, value in values.items()}


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys from a file that an earlier version may have written, under their present names."""
    return {RENAMED.get(key, key): value for key, value in values.items()}


def flatten(sections: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Nested rooms, as a YAML file holds them, to dotted keys."""
    return {f"{room}.{key}": value for room, section in sections.items() for key, value in section.items()}


def assemble(recipe: str, values: Mapping[str, Any]) -> RunConfig:
    """A RunConfig from checked values by dotted key; what is left out takes its default.

    Raises:
        ConfigError: A value out of range, a missing one, or values that do not go together.
    """
    missing = sorted(known_keys().keys() - defaults().keys() - values.keys())
    if missing:
        raise ConfigError(f"recipe={recipe}: leaves {', '.join(missing)} open; set each in the file or as --room.key")
    rooms = {room: {field.name: values[f"{room}.{field.name}"] for field in _settable(room)
                    if f"{room}.{field.name}" in values} for room in ROOMS}  # fmt: skip
    inputs = {key: rooms["data"][key] for key in MODEL_INPUT_KEYS}
    return RunConfig(
        recipe=recipe,
        data=DataConfig(**rooms["data"]),
        model=ModelConfig(**rooms["model"], **inputs),
        objective=ObjectiveConfig(**rooms["objective"]),
        optim=OptimConfig(**rooms["optim"]),
        train=TrainConfig(**rooms["train"]),
    )


def take_apart(config: RunConfig) -> dict[str, Any]:
    """The dotted keys of a RunConfig; `assemble` puts them together again."""
    return {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in known_keys()}


def _settable(room: str) -> Iterable[Field[Any]]:
    skipped = MODEL_INPUT_KEYS if room == "model" else ()
    return [field for field in fields(ROOMS[room]) if field.name not in skipped]


def _typed(key: str, value: object) -> object:
    known = known_keys()
    if key in known:
        return _convert(key, value, known[key])
    room, _, name = key.partition(".")
    if room == "model" and name in MODEL_INPUT_KEYS:
        raise ConfigError(f"{key}={value}: is decided by the data; set data.{name}")
    if key in RENAMED:
        raise UnknownNameError(f"{key}={value}: was renamed; use {RENAMED[key]}")
    raise UnknownNameError(f"{key}={value}: no such key; {nearest(key, known)}")


def _convert(key: str, value: object, kind: Any) -> object:
    """`value`, perhaps a string from the command line, as `kind`."""
    options = get_args(kind) if get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if value is None or value == "none":
        if type(None) in options:
            return None
        if get_origin(kind) is not Literal:
            raise ConfigError(f"{key}={value}: must be {_name(kind)}; leave it out for the default")
    kind = next(option for option in options if option is not type(None))
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise UnknownNameError(f"{key}={value}: no such choice; {nearest(str(value), map(str, get_args(kind)))}")
    if get_origin(kind) is tuple:
        return _tuple(key, value, kind)
    converted = _scalar(value, kind)
    if converted is None:
        raise ConfigError(f"{key}={value}: must be {_name(kind)}; see `vitreous train --help`")
    return converted


def _scalar(value: object, kind: type) -> object | None:
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        return value if isinstance(value, bool) else words.get(str(value).lower())
    if kind is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    text = str(value).replace("_", "").strip()
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    # A seed may have more digits than a float keeps.
    return int(text) if kind is int and text.lstrip("+-").isdecimal() else kind(number)


def _tuple(key: str, value: object, kind: Any) -> tuple[object, ...]:
    """`64`, `64x48`, `0.5,0.5,0.5` or a YAML list; one number stands for a pair of equal ones."""
    parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
    items = list(parts) if isinstance(parts, list | tuple) else [parts]
    element, *rest = get_args(kind)
    if rest == [int] and len(items) == 1:
        items *= 2
    converted = tuple(_scalar(item, element) for item in items)
    if None in converted or (rest == [int] and len(converted) != 2):
        example = "64 or 64x48" if rest == [int] else "0.5 or 0.5,0.4,0.3"
        raise ConfigError(f"{key}={value}: must be {_name(kind)}; e.g. {example}")
    return converted


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if get_origin(kind) is tuple:
        element, *rest = get_args(kind)
        return "one or two whole numbers (height x width)" if rest == [int] else f"a list, each {_name(element)}"
    return names.get(kind, "one of its choices")
