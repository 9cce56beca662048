import inspect
import re

import pytest

from vitreous import errors
from vitreous.errors import UnknownNameError, VitreousError, nearest

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, VitreousError)]


def test_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.search(r"([A-Z]\w+(?:Error|Exception))\b|^ +(Exception)$", line)
        if not found or not line.startswith("    ") or not re.match(r"^[ │├└─]*[A-Z]", line):
            continue
        depth, name = found.start(), found.group(1) or found.group(2)
        above = [entry for entry in above if entry[0] < depth]
        drawn[name] = above[-1][1] if above else ""
        above.append((depth, name))
    parents = {c.__name__: c.__bases__[0].__name__ for c in CLASSES}
    assert {name: parent for name, parent in drawn.items() if name != "Exception"} == parents


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.UnknownNameError, KeyError),
        (errors.ShapeError, ValueError),
        (errors.DataError, ValueError),
        (errors.DataNotFoundError, FileNotFoundError),
        (errors.RunError, ValueError),
        (errors.NotARunError, FileNotFoundError),
        (errors.SaveError, OSError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_descend_from_the_builtin_a_python_user_expects(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", CLASSES)
def test_text_of_an_error_is_its_message_alone(error: type[VitreousError]) -> None:
    assert str(error("a=1: b; c")) == "a=1: b; c"
    assert str(error()) == ""


def test_unknown_name_is_not_quoted_as_key_errors_are() -> None:
    assert str(UnknownNameError("x=y: no such x; use z")) == "x=y: no such x; use z"


def test_nearest_name_is_suggested_else_the_list() -> None:
    assert nearest("adamv", ["sgd", "adamw"]) == "did you mean adamw?"
    assert nearest("qqq", ["sgd", "adamw"]) == "use one of adamw, sgd"


def test_long_list_is_cut_and_counted() -> None:
    names = [f"name{number:02}" for number in range(15)]
    assert nearest("qqq", names) == f"use one of {', '.join(names[:12])}, … (15 in all)"
