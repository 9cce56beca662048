"""Dotted keys with untyped values (YAML, command line) <-> RunConfig.

A recipe fills one flat dictionary of `room.key` names, a file stores it, and the command line overrides it.
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from numbers import Number
from operator import attrgetter
from pathlib import PurePath
from typing import Any

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import FORMER_NAMES, ModelConfig
from vitreous.objective.config import ObjectiveConfig, uses_labels
from vitreous.optim.config import OptimConfig
from vitreous.ranges import Rule, check_value, rules_of
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig, TrainConfig
from vitreous.wording import printable, printable_value

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
"""Former names of keys -> present names. Files of old runs are read with them."""

OTHER_NAMES: dict[str, str] = {
    "batch": "data.batch_size",
    "cutmix": "data.cutmix_alpha",
    "drop_path": "model.drop_path_rate",
    "dropout": "model.pos_drop_rate",
    "image_size": "data.img_size",
    "imgsz": "data.img_size",
    "learning_rate": "optim.lr",
    "mixup": "data.mixup_alpha",
    "num_epochs": "train.epochs",
    "optimizer": "optim.name",
    "smoothing": "objective.label_smoothing",
}
"""Names that other libraries use -> keys to suggest for them."""

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@cache
def rules() -> dict[str, Rule]:
    """Return every key that a user may set, with the values it takes."""
    return {
        f"{room}.{name}": rule
        for room, config in ROOMS.items()
        for name, rule in rules_of(config).items()
        if not (room == "model" and name in MODEL_INPUT_KEYS)
    }


@cache
def defaults() -> dict[str, Any]:
    """Return the default of each key that has one. The other keys are decided by the data or the recipe."""
    return {key: rule.default for key, rule in rules().items() if not rule.is_required}


def checked(values: Mapping[str, object]) -> dict[str, Any]:
    """Convert untyped values to the types of their keys and check their ranges.

    The values are as Python, YAML or the command line gives them, by dotted key.

    Raises:
        UnknownNameError: A key does not exist, or a name is not among the choices of its key.
        ConfigError: Another value has the wrong type or is out of range, or the key is decided by another one.
    """
    return {key: _checked(key, value) for key, value in values.items()}


def has_labels(values: Mapping[str, Any]) -> bool:
    """Return True if a run with these keys learns from labels; it does unless its loss is a self-supervised one."""
    return uses_labels(values.get("objective.loss", "cross_entropy"))


def architecture(values: Mapping[str, object]) -> dict[str, Any]:
    """Convert and check what a user says about the model in a file of weights, by field of ModelConfig.

    Raises:
        UnknownNameError: There is no such field, or no such choice for it.
        ConfigError: Another value has the wrong type or is out of range.
    """
    known, found = rules_of(ModelConfig), {}
    for name, value in values.items():
        if name not in known:
            raise UnknownNameError(f"architecture.{name}={value}: no such key; {nearest(name, known)}")
        found[name] = _convert(value, known[name])
        check_value(f"architecture.{name}", found[name], known[name], shown=str(value))
    return found


def architecture_in(text: str) -> dict[str, Any]:
    """Read `train.pretrained_as`, such as `num_heads=4 img_size=16x64`; raises like `architecture`."""
    pairs = [word.partition("=") for word in text.split()]
    return architecture({name: value for name, _, value in pairs})


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace former names of keys by the present ones, for files that earlier versions wrote."""
    return {RENAMED.get(key, key): value for key, value in values.items()}


def flatten(sections: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Turn the nested sections of a YAML file into dotted keys."""
    return {f"{room}.{key}": value for room, section in sections.items() for key, value in section.items()}


def assemble(recipe: str, values: Mapping[str, Any]) -> RunConfig:
    """Build a RunConfig from typed values by dotted key; keys that are left out take their defaults.

    Raises:
        ConfigError: A value is missing or out of range, or two values contradict each other.
    """
    missing = sorted(rules().keys() - defaults().keys() - values.keys())
    if missing:
        raise ConfigError(
            f"recipe={recipe}: does not set {', '.join(missing)}; set each in the file or as --section.key value"
        )
    fields: dict[str, dict[str, Any]] = {room: {} for room in ROOMS}
    for key in rules().keys() & values.keys():
        room, _, name = key.partition(".")
        fields[room][name] = values[key]
    inputs = {name: fields["data"][name] for name in MODEL_INPUT_KEYS}
    return RunConfig(
        recipe=recipe,
        data=DataConfig(**fields["data"]),
        model=ModelConfig(**fields["model"], **inputs),
        objective=ObjectiveConfig(**fields["objective"]),
        optim=OptimConfig(**fields["optim"]),
        train=TrainConfig(**fields["train"]),
    )


def take_apart(config: RunConfig) -> dict[str, Any]:
    """Return the dotted keys of a RunConfig, from which `assemble` builds it again."""
    return {key: attrgetter(key)(config) for key in rules()}


def keys_named(name: str) -> list[str]:
    """Return the keys that a name without its room can mean, e.g. `optim.lr` for `lr`; former names count too."""
    found = [RENAMED.get(key, key) for key in [*rules(), *RENAMED] if key.partition(".")[2] == name]
    return found or [key for other, key in OTHER_NAMES.items() if other == name]


def _checked(key: str, value: object) -> object:
    rule = rules().get(key)
    if rule is None:
        room, _, name = key.partition(".")
        if room == "model" and name in MODEL_INPUT_KEYS:
            raise ConfigError(f"{key}={shown(value)}: is decided by the data; set data.{name}")
        if key in RENAMED:
            raise UnknownNameError(f"{key}={shown(value)}: was renamed; use {RENAMED[key]}")
        raise UnknownNameError(f"{printable(key)}={shown(value)}: no such key; {_suggestion(key)}")
    converted = _convert(value, rule)
    check_value(key, converted, rule, shown=shown(value))
    return converted


def shown(value: object) -> str:
    """Return how a message shows a value of a key: text as it was typed, unless it is blank."""
    return printable(value) if isinstance(value, str) and value.strip() else printable_value(value)


def _suggestion(key: str) -> str:
    """Return what to do about an unknown key: use a key of the same name, a similar one, or look at the list."""
    room, _, name = key.rpartition(".")
    names = {known.partition(".")[2]: known for known in rules()}
    found = (
        keys_named(name)
        or (get_close_matches(key, rules(), n=1) if room else [])
        or [names[near] for near in get_close_matches(name, names, n=1, cutoff=0.7)]
    )
    return f"did you mean {' or '.join(found)}?" if found else "see `vitreous train --help-keys` for all keys"


def _convert(value: object, rule: Rule) -> object:
    """Convert a value, perhaps text from the command line, to the type of a rule; if it cannot be, return it as is."""
    if rule.is_optional and (value is None or (isinstance(value, str) and value == "none")):
        return None
    if rule.length:
        return _tuple(value, rule)
    return _scalar(value, rule.kind)


def _scalar(value: object, kind: type) -> object:
    if kind is bool:
        return _TRUTH.get(str(value).lower(), value) if isinstance(value, str) else value
    if kind is str:
        return str(value) if isinstance(value, PurePath) else value
    if isinstance(value, bool) or not isinstance(value, str | Number):
        return value
    try:
        if isinstance(value, int):
            return kind(value)
        text = str(value).replace("_", "").strip()
        number = float(text)
        if not math.isfinite(number) or (kind is int and number != int(number)):
            return value
        # Not through float, which would round a seed of more than 16 digits.
        return int(text) if kind is int and text.lstrip("+-").isdecimal() else kind(number)
    except (ValueError, OverflowError):  # not a number, or one with hundreds of digits
        return value


def _tuple(value: object, rule: Rule) -> object:
    """Convert `64`, `64x48`, `0.5,0.5,0.5` or a YAML list; a single number stands for two equal ones if two are due."""
    parts = value.strip("()[] ").replace("x", ",").split(",") if isinstance(value, str) else value
    items = list(parts) if isinstance(parts, list | tuple) else [parts]
    if rule.length == 2 and len(items) == 1:
        items *= 2
    return tuple(_scalar(item, rule.kind) for item in items)
