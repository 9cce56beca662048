"""Names, options and keys that users type -> one text, stored in `surface.txt`.

`python -m tests.contract.surface` updates the file. The change is then part of the commit; CHANGELOG.md explains it.
"""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vitreous
from vitreous.cli.main import COMMANDS, app
from vitreous.recipe.keys import ROOMS, defaults, rules
from vitreous.recipe.shipped import SHIPPED
from vitreous.training.folder.run_folder import Inside, RunFolder

FILE = Path(__file__).with_name("surface.txt")


def describe() -> str:
    """Return the surface as text, one item per line."""
    sections = {
        "python": _python(),
        "command line": _command_line(),
        "configuration": _configuration(),
        "recipes": iter(sorted(SHIPPED)),
        "run folder": _run_folder(),
    }
    head = "What users type. To change it: python -m tests.contract.surface, and a line in CHANGELOG.md.\n"
    return head + "".join(
        f"\n[{title}]\n" + "".join(f"{line}\n" for line in lines) for title, lines in sections.items()
    )


def _python() -> Iterator[str]:
    for name in vitreous.__all__:
        thing = getattr(vitreous, name)
        if not inspect.isclass(thing):
            yield f"vitreous.{name}{_signature(thing)}"
            continue
        yield f"vitreous.{name}{_signature(thing.__init__)}"
        for attribute, value in sorted(vars(thing).items()):
            if attribute.startswith("_"):
                continue
            read = getattr(value, "fget", None) or getattr(value, "func", None)
            if not isinstance(read or value, types.FunctionType):  # scikit-learn adds its own to classifiers
                continue
            yield f"vitreous.{name}.{attribute}{_signature(read or value).replace('()', '', 1 if read else 0)}"


def _signature(function: Callable[..., Any]) -> str:
    """Return the signature as it is written, so that it does not depend on the version of Python."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{function}: not a function")
    node.args.args = [argument for argument in node.args.args if argument.arg != "self"]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def _command_line() -> Iterator[str]:
    for command, (_, usage) in COMMANDS.items():
        yield f"vitreous {command} {usage}"
        for argument in app[command].assemble_argument_collection():
            name = argument.names[0]
            if name == "*" or argument.parameter.show is False:
                continue
            default = argument.field_info.default
            given = "" if default in (None, False, inspect.Parameter.empty) else f" = {default}"
            yield f"vitreous {command} {name}: {_type(argument.hint)}{given}"


def _configuration() -> Iterator[str]:
    for key in rules():
        room, _, name = key.partition(".")
        kind = typing.get_type_hints(ROOMS[room])[name]
        given = f" = {defaults()[key]!r}" if key in defaults() else ""
        yield f"{key}: {_type(kind)}{given}"


def _run_folder() -> Iterator[str]:
    folder = RunFolder(Path())
    names = [name for name, value in vars(RunFolder).items() if isinstance(value, property | Inside)]
    return iter(sorted(str(getattr(folder, name)) for name in names))


def _type(kind: Any) -> str:
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join("None" if option is types.NoneType else _type(option) for option in options)
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(repr, options))
    if options:
        inside = ", ".join("..." if option is Ellipsis else _type(option) for option in options)
        return f"{typing.get_origin(kind).__name__}[{inside}]"
    return str(kind.__name__)


if __name__ == "__main__":
    FILE.write_text(describe(), encoding="utf-8")
