"""Annotated dataclass fields -> checked values: each field declares its type and range, one function checks all."""

import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache, cached_property
from typing import Annotated, Any, Literal, get_args, get_origin

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.paths import is_possible
from vitreous.wording import printable, printable_value, show

NOUNS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
ANY_LENGTH = -1


@dataclass(frozen=True)
class Interval:
    """Range of a number, or of each number in a tuple. Used as `Annotated[float, Interval("(0, 1]")]`.

    Attributes:
        text: Mathematical notation. A round bracket excludes its limit; limits may be `inf` or a power such as `2**31`.
        hint: Advice at the end of the error message, e.g. `0.1 is usual`; empty names the field's default.
    """

    text: str
    hint: str = ""

    @cached_property
    def _limits(self) -> list[float]:
        powers = [bound.split("**") for bound in self.text[1:-1].split(",")]
        return [float(base) ** float(*exponent or (1,)) for base, *exponent in powers]

    def words(self, kind: type) -> str:
        """Describe the range for a message: `in (0, 1]`, or in words if a limit is a power, e.g. `from 1 to 255`."""
        if "**" not in self.text:
            return f"in {self.text}"
        low, high = map(round, self._limits)
        if kind is int:  # all are half-open, as `[1, 2**31)`
            return f"from {low:,} to {high - 1:,}"
        return f"above {low:,} and below {high:,}" if self.text[0] == "(" else f"from {low:,} to below {high:,}"

    def __contains__(self, number: int | float) -> bool:
        low, high = self._limits
        if not abs(number) <= sys.float_info.max:  # a NaN, or a whole number that no float can hold
            return False
        is_above = number >= low if self.text[0] == "[" else number > low
        return is_above and (number <= high if self.text[-1] == "]" else number < high)


@dataclass(frozen=True)
class Hint:
    """Advice at the end of the error message of a field without an interval, such as a string or a `Literal`."""

    hint: str


@dataclass(frozen=True)
class Rule:
    """The type and range that one field accepts.

    Attributes:
        kind: `bool`, `int`, `float` or `str`; for a tuple, the kind of its elements.
        length: 0 for a single value, the number of elements for a tuple, `ANY_LENGTH` for a tuple of any length.
        choices: All allowed values; empty if kind and interval decide.
        interval: Range of a number; None for other kinds.
        is_optional: Whether None is allowed too.
        is_required: Whether the field has no default.
        default: Default of the field.
        hint: Advice at the end of the error message; empty names the default.
    """

    kind: type
    length: int = 0
    choices: tuple[Any, ...] = ()
    interval: Interval | None = None
    is_optional: bool = False
    is_required: bool = True
    default: Any = None
    hint: str = ""

    def allows(self, value: object) -> bool:
        """Return True if a value has the right type and is in range."""
        if value is None:
            return self.is_optional
        return self._has_type(value) and all(self._is_in_range(item) for item in self._items(value))

    def requirement(self, value: object) -> str:
        """Describe the allowed values, e.g. `a number in (0, inf)`; only `in (0, inf)` if `value` is a number."""
        if self.choices:
            names = [str(choice) for choice in self.choices]
            text = f"one of {', '.join(names)}" if self.kind is str else " or ".join(names)
        elif self.interval and not self.length and self._has_type(value):
            text = self.interval.words(self.kind)
        else:
            text = self.type_name()
            if self.kind in (int, float) and self.length <= 0:
                text = f"a {text}"
            if self.interval:
                text += f"{', each' if self.length else ''} {self.interval.words(self.kind)}"
            elif self.kind is str:
                is_blank = not isinstance(value, str) or not value.strip(" ")
                limits = " of at most 255 characters, none of them a null or a surrogate"
                text += " that is not blank" if is_blank else limits
        return f"{text}, or none" if self.is_optional else text

    def type_name(self) -> str:
        """Name the type, e.g. `number`, `2 whole numbers` or `list of numbers`."""
        noun = NOUNS[self.kind]
        if self.length == ANY_LENGTH:
            return f"list of {noun}s"
        return f"{self.length} {noun}s" if self.length else noun

    def way_out(self, value: object) -> str:
        """Return what to do about a rejected value: the nearest choice, the hint or the default."""
        got = value if isinstance(value, str) else printable_value(value)
        near = get_close_matches(got, self.choices, n=1) if self.kind is str else []
        if near:
            return f"did you mean {near[0]}?"
        return self.hint or f"the default is {show(self.default)}"

    def _has_type(self, value: object) -> bool:
        if self.length and not (isinstance(value, tuple) and self.length in (len(value), ANY_LENGTH)):
            return False
        accepted = (int, float) if self.kind is float else self.kind
        return all(  # True and False are integers to Python, but not to a user
            isinstance(item, accepted) and isinstance(item, bool) is (self.kind is bool) for item in self._items(value)
        )

    def _items(self, value: Any) -> tuple[Any, ...]:
        return value if self.length else (value,)

    def _is_in_range(self, item: Any) -> bool:
        if self.choices:
            return item in self.choices
        if self.interval:
            return item in self.interval
        return self.kind is not str or (bool(item.strip(" ")) and is_possible(item))


def check_fields(config: Any, room: str) -> None:
    """Check every field of a dataclass instance against its annotation.

    `room` is the prefix of the keys in the message, e.g. `optim`.

    Raises:
        UnknownNameError: A name is not among the choices of its field.
        ConfigError: Another value has the wrong type or is out of range.
    """
    for name, rule in rules_of(type(config)).items():
        check_value(f"{room}.{name}", getattr(config, name), rule)


def check_value(key: str, value: object, rule: Rule, *, shown: str = "") -> None:
    """Check one value.

    The message shows the value as `shown`; by default as Python writes it, or as a plain word among choices.

    Raises:
        UnknownNameError: A name is not among the choices.
        ConfigError: Another value has the wrong type or is out of range.
    """
    if rule.allows(value):
        return
    if not shown:
        shown = printable(value) if rule.choices and isinstance(value, str) else printable_value(value)
    message = f"{key}={shown}: must be {rule.requirement(value)}; {rule.way_out(value)}"
    if rule.choices and rule.kind is str:
        raise UnknownNameError(message)
    raise ConfigError(message)


def check_arguments(function: Any, given: Mapping[str, object]) -> None:
    """Check arguments against the annotations of their function; only names and numbers, which have a rule.

    The annotations are those of configuration keys, as `str | None`.

    Raises:
        ConfigError: A value has the wrong type or is out of range.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    for name, value in given.items():
        check_value(name, value, rule_of(hints[name]))


def rules_of(config: type) -> Mapping[str, Rule]:
    """Return the rule of each field of a dataclass type, read once per type."""
    return _read_rules(config)


@cache  # its type takes no class, so it has a function of its own
def _read_rules(config: Any) -> Mapping[str, Rule]:
    hints = typing.get_type_hints(config, include_extras=True)
    rules = {field.name: (rule_of(hints[field.name]), field.default) for field in fields(config)}
    return {
        name: rule if default is MISSING else replace(rule, default=default, is_required=False)
        for name, (rule, default) in rules.items()
    }


@cache
def rule_of(annotation: Any) -> Rule:
    """Return the rule that an annotation declares. Names are declared as `Literal`; texts must not be blank."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        (present,) = (option for option in arguments if option is not types.NoneType)
        return replace(rule_of(present), is_optional=True)
    if origin is Annotated:
        rule = rule_of(arguments[0])
        for constraint in arguments[1:]:  # those of other libraries, such as a converter, say nothing about the range
            if isinstance(constraint, Interval | Hint):
                interval = constraint if isinstance(constraint, Interval) else rule.interval
                rule = replace(rule, interval=interval, hint=constraint.hint)
        return rule
    if origin is Literal:
        return Rule(type(arguments[0]), choices=arguments)
    if origin is tuple:
        length = ANY_LENGTH if arguments[1:] == (Ellipsis,) else len(arguments)
        return replace(rule_of(arguments[0]), length=length)
    return Rule(annotation, interval=Interval("(-inf, inf)") if annotation is float else None)
