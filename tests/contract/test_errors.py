"""Errors: the tree in the docstring is the real one, and nothing else is raised deliberately."""

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
    "__init__.py AttributeError": "required by Python in a module's __getattr__",
    "cli/train/shard.py KeyboardInterrupt": "Ctrl-C or SIGTERM, after the written files are removed",
    "data/decoding/arrays.py ValueError": "caught in decode.py, where it becomes a DecodeError",
    "data/decoding/decode.py ValueError": "caught in the same file, where it becomes a DecodeError",
    "data/decoding/depth.py ValueError": "caught in decode.py, where it becomes a DecodeError",
    "data/decoding/limits.py ValueError": "caught in decode.py, where it becomes a DecodeError",
    "data/decoding/modes.py ValueError": "caught in decode.py, where it becomes a DecodeError",
    "data/sources/dataset.py ValueError": "caught in the same file, where it becomes a DecodeError",
    "data/survey/value_range.py ValueError": "caught in decode.py, where it becomes a DecodeError",
    "model/weights/reading/hub.py InterruptedError": "ends a thread whose result is not used any more",
    "model/weights/reading/hub.py TimeoutError": "caught in the same file, where it becomes a NotARunError",
    "model/weights/reading/hub.py event": "the error of a thread",
    "model/weights/reading/inert.py TypeError": "caught in reading/kinds.py, where it becomes a DamagedFileError",
    "model/weights/reading/inert.py ValueError": "caught in reading/kinds.py, where it becomes a DamagedFileError",
    "model/weights/reading/torch_file.py ValueError": "caught in reading/kinds.py, where it becomes a DamagedFileError",
    "recipe/files.py yaml.composer.ComposerError": "caught in the same file, becomes a ConfigError",
    "recipe/files.py yaml.constructor.ConstructorError": "caught in the same file, becomes a ConfigError",
    "tensor_file.py OSError": "reports a full disk to atomic.write, which raises SaveError",
    "training/folder/outputs.py ValueError": "caught in the same file, where it becomes a DamagedFileError",
    "training/machine/distributed.py error": "the error of another process",
    "training/machine/launch.py KeyboardInterrupt": "the third Ctrl-C",
    "training/machine/launch.py outcome": "the error of the first process",
    "training/fit/loop.py Interrupted": "a KeyboardInterrupt that says how to resume",
    "training/start.py Interrupted": "the same, with what there is of the run",
    "training/series.py Interrupted": "the same for a series",
    "training/machine/signals.py KeyboardInterrupt": "the second Ctrl-C",
    "use/batch/cluster.py error.cause": "the error of a worker",
    "use/batch/local.py received": "the error of a worker",
    "use/batch/part_folder.py ValueError": "caught in the same file, where it becomes a DamagedFileError",
    "use/batch/write.py Stopped": "a KeyboardInterrupt that says how to continue",
    "data/sources/annotations/cvat.py StopIteration": "caught in the same file: XML of another program",
    "use/predict/classes.py ValueError": "caught where it is called, where it becomes a DamagedFileError",
    **{
        f"use/serve/{name}.py HTTPException": "becomes an answer with its status, and is tested there"
        for name in ("app", "bodies", "fetch", "guard", "protocol")
    },
    "use/serve/protocol.py PydanticCustomError": "becomes an answer with status 400, and is tested there",
    **{f"use/serve/{name}.py busy": "becomes an answer with status 503" for name in ("app", "guard")},
}

WITHOUT_ADVICE = {"DecodeError": "names the file and the reason; its caller says what to do"}


def _drawn() -> dict[str, tuple[str, str | None]]:
    """Return name -> (parent, builtin) as in the docstring of errors.py."""
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


def test_tree_in_the_docstring_has_exactly_the_existing_classes() -> None:
    assert set(_drawn()) == {*CLASSES, "Exception"}
    assert len(CLASSES) > 10


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_has_the_bases_in_the_docstring(name: str) -> None:
    parent, builtin = _drawn()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent
    assert issubclass(CLASSES[name], VitreousError)
    if builtin:
        assert CLASSES[name].__bases__[1:] == (getattr(builtins, builtin),)
    else:
        assert len(CLASSES[name].__bases__) == 1


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_text_of_an_error_is_only_its_message(name: str) -> None:
    with pytest.raises(VitreousError) as caught:
        raise CLASSES[name]("key=3: must be 4; use 4")
    assert str(caught.value) == "key=3: must be 4; use 4"


def _raises() -> list[tuple[str, str, str]]:
    """Return (file, class, literal text) of every raise with an expression."""
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
    """Return the functions whose annotation says that they return an error."""
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


def test_only_errors_py_defines_errors() -> None:
    own = {
        f"{name} {node.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).endswith(("Error", "Exception")) for b in node.bases)
    }
    assert own == {f"errors.py {name}" for name in CLASSES}


def test_every_message_says_what_to_do() -> None:
    # A message that is composed elsewhere has no literal here; the tests of its room check it.
    silent = [
        f"{file}: {text}"
        for file, what, text in _raises()
        if what in CLASSES and what not in WITHOUT_ADVICE and len(text) > 12 and ";" not in text
    ]
    assert silent == []
