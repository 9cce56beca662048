"""Errors: the drawn tree is the real one, and nothing else is raised on purpose."""

import ast
import builtins
import inspect
import re

import pytest
from tests.contract.sources import modules

from vitreous import errors
from vitreous.errors import VitreousError

CLASSES = {name: c for name, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, VitreousError)}

FOREIGN_RAISES = {
    "__init__.py AttributeError": "Python asks for it in a module's __getattr__",
    "cli/shard.py KeyboardInterrupt": "the first Ctrl-C or SIGTERM, once what was written is removed",
    "data/decoding/decode.py ValueError": "caught in the same file, where every reason becomes a DecodeError",
    "model/weights/native.py OSError": "how atomic.write is told that a disk is full; it raises SaveError",
    "recipe/files.py yaml.composer.ComposerError": "caught in the same file, becomes a ConfigError",
    "recipe/files.py yaml.constructor.ConstructorError": "caught in the same file, becomes a ConfigError",
    "training/machine/distributed.py error": "what the first process raised; its own, made there",
    "training/machine/distributed.py result": "what another process raised; its own, made there",
    "training/machine/launch.py KeyboardInterrupt": "the third Ctrl-C",
    "training/machine/launch.py outcome": "what the first of the processes raised; its own, made there",
    "training/fit/loop.py Interrupted": "a KeyboardInterrupt that says how to go on",
    "training/series.py Interrupted": "the same, of a series",
    "training/machine/signals.py KeyboardInterrupt": "the second Ctrl-C",
}

WITHOUT_WAY_OUT = {"DecodeError": "which file and why; what to do with it is the caller's to say"}


def _drawn() -> dict[str, tuple[str, str | None]]:
    """Name -> (parent, builtin) as the docstring of errors.py draws it."""
    tree: dict[str, tuple[str, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([ │├└─]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if found:
            depth = len(found[1])
            above = [entry for entry in above if entry[0] < depth]
            tree[found[2]] = (above[-1][1] if above else "", found[3])
            above.append((depth, found[2]))
    return tree


def test_every_class_is_drawn_and_every_drawn_one_exists() -> None:
    assert set(_drawn()) == {*CLASSES, "Exception"}
    assert len(CLASSES) > 10


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_stands_below_its_parent_and_the_builtin_it_names(name: str) -> None:
    parent, builtin = _drawn()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent
    assert issubclass(CLASSES[name], VitreousError)
    if builtin:
        assert CLASSES[name].__bases__[1:] == (getattr(builtins, builtin),)
    else:
        assert len(CLASSES[name].__bases__) == 1


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_error_is_caught_by_name_and_says_only_its_message(name: str) -> None:
    with pytest.raises(VitreousError) as caught:
        raise CLASSES[name]("key=3: must be 4; use 4")
    assert str(caught.value) == "key=3: must be 4; use 4"


def _raises() -> list[tuple[str, str, str]]:
    """(file, class, literal text) of every raise of something new."""
    found = []
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                call = node.exc
                what = ast.unparse(call.func if isinstance(call, ast.Call) else call)
                texts = [c.value for c in ast.walk(call) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
                found.append((name, what, "".join(texts)))
    return found


def _makers() -> set[str]:
    """Functions that make an error for others to raise: those whose annotation says so."""
    return {
        node.name
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) in CLASSES
    }


def test_only_errors_of_the_tree_are_raised() -> None:
    known = {*CLASSES, *_makers()}
    foreign = {f"{file} {what}" for file, what, _ in _raises() if what not in known}
    assert foreign == set(FOREIGN_RAISES)


def test_no_room_defines_errors_of_its_own() -> None:
    own = {
        f"{name} {node.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).endswith(("Error", "Exception")) for b in node.bases)
    }
    assert own == {f"errors.py {name}" for name in CLASSES}


def test_every_message_names_a_way_out() -> None:
    # A text that is put together elsewhere has no literal here: the tests of its room read it.
    silent = [
        f"{file}: {text}"
        for file, what, text in _raises()
        if what in CLASSES and what not in WITHOUT_WAY_OUT and len(text) > 12 and ";" not in text
    ]
    assert set(silent) <= PUT_TOGETHER


PUT_TOGETHER = {
    "data/sources/shards/files.py: data.source=: ",
}
"""`_missing` words it."""
