"""Limits on the size of files, functions and signatures, and other rules of CONTRIBUTING.md.

The exceptions to each rule are listed here with a reason. An exception that is no longer needed is an error too.
"""

import ast
import io
import re
import tokenize
import typing
from collections.abc import Iterator

import pytest
from tests.contract.sources import PACKAGE, ROOT, modules, name_of, project_files

MOST_LINES = 300
MOST_FUNCTION_LINES = 60
MOST_ARGUMENTS = 8
MOST_ENTRIES = 15
FEWEST_FILES = 3

EXCEPTIONS = {
    "any argument": {
        "model/build.py create_model": "any field of ModelConfig; each is checked by name",
        "model/timm_registry.py _entrypoint.make": "timm passes on its user's arguments; each is checked by name",
        "model/timm_registry.py _model": "timm passes on its user's arguments; each is checked by name",
        "use/explain/methods/__init__.py Method.__call__": "arguments of the method, which differ; Python checks them",
    },
    "arguments": {
        "api.py train": "the most used settings of a run",
        "classifier.py VitreousClassifier.__init__": "the most used settings of a run",
        "cli/look/embed.py embed": "one argument per option",
        "cli/look/explain.py explain": "one argument per option",
        "cli/look/inspect.py inspect": "one argument per option",
        "model/vit.py VisionTransformer.__init__": "its parts, in the order of the forward pass",
        "notebook.py VisionTransformer.__init__": "the original notebook's signature",
    },
    "entries": {
        ".": "the eight rooms, and the ground floor with one topic per file",
        "use/report/sections": "one file per section of the report",
    },
    "first line": {
        "__init__.py": "describes the project",
    },
    "top level": {
        "__main__.py": "is meant to be run",
        "cli/main.py": "registers its commands in a loop",
    },
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Yield every function and method with its name, `file.py Class.method`."""

    def inside(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child
            deeper = isinstance(child, Function | ast.ClassDef)
            yield from inside(child, f"{prefix}{child.name}." if deeper else prefix)

    for name, tree in modules().items():
        yield from inside(tree, f"{name} ")


def check(broken: dict[str, object], rule: str = "") -> None:
    """Fail for anything that breaks a rule without an exception, and for exceptions that are not needed."""
    allowed = EXCEPTIONS.get(rule, {})
    assert {name: got for name, got in broken.items() if name not in allowed} == {}
    assert set(allowed) <= set(broken), "these exceptions are no longer needed"


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    check({name: lines for name, lines in sizes.items() if lines > MOST_LINES})


def test_folders_have_3_to_15_entries() -> None:
    """At least 3 files, and at most 15 files and sub-folders apart from `__init__.py`."""
    wrong = {}
    for init in PACKAGE.rglob("__init__.py"):
        files = {path for path in init.parent.iterdir() if path.suffix == ".py"}
        entries = (files - {init}) | {path.parent for path in init.parent.glob("*/__init__.py")}
        if len(entries) > MOST_ENTRIES or len(files) < FEWEST_FILES:
            wrong[name_of(init.parent)] = f"{len(entries)} entries, {len(files)} files"
    check(wrong, "entries")


def test_functions_are_short() -> None:
    sizes = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    check({name: lines for name, lines in sizes.items() if lines > MOST_FUNCTION_LINES})


def test_signatures_are_short() -> None:
    counts = {}
    for name, node in functions():
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        counts[name] = len([arg for arg in names if arg not in ("self", "cls")])
    check({name: count for name, count in counts.items() if count > MOST_ARGUMENTS}, "arguments")


def test_no_signature_accepts_arbitrary_keywords() -> None:
    """A typed `Unpack` names every argument, so mypy checks them."""
    sponges = {name: node.args.kwarg for name, node in functions() if node.args.kwarg}
    untyped = {
        name: arg.arg
        for name, arg in sponges.items()
        if not (arg.annotation and ast.unparse(arg.annotation).startswith("Unpack["))
    }
    check(untyped, "any argument")


def test_only_the_command_line_prints() -> None:
    printing = {}
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write"):
                printing[name] = node.lineno
    check({name: line for name, line in printing.items() if not name.startswith("cli/")})


def test_no_assert_that_python_o_would_skip() -> None:
    check({
        name: node.lineno for name, tree in modules().items() for node in ast.walk(tree) if isinstance(node, ast.Assert)
    })  # fmt: skip


def test_importing_has_no_side_effects() -> None:
    quiet = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, *typing.get_args(Function), ast.ClassDef)
    busy = {}
    for name, tree in modules().items():
        for node in tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not (isinstance(node, quiet) or docstring or for_types):
                busy[name] = ast.unparse(node)
    check(busy, "top level")


def test_every_file_states_its_input_and_output() -> None:
    first = {name: (ast.get_docstring(tree) or "nothing").splitlines()[0] for name, tree in modules().items()}
    arrow = re.compile(r"\S <?-> \S")
    check({name: line for name, line in first.items() if not arrow.search(line)}, "first line")


def test_no_code_is_commented_out() -> None:
    commented = {}
    for path in PACKAGE.rglob("*.py"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.COMMENT and is_code(token.string):
                commented[f"{name_of(path)}:{token.start[0]}"] = token.string
    check(commented)


def is_code(comment: str) -> bool:
    """Return True if a comment parses as a statement with an effect."""
    text = comment.lstrip("# ")
    if re.match(r"(fmt|type|noqa|pragma)\b", text):
        return False
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    doing = (ast.Assign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.Return, ast.Raise, ast.Assert, ast.Delete)
    return any(isinstance(s, doing) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)) for s in body)


@pytest.mark.parametrize(
    ("comment", "code"),
    [("# x = f(3)", True), ("# return 4", True), ("# print(x)", True), ("# import os", True),
     ("# a sentence", False), ("# noqa: F401", False), ("# fmt: skip", False), ("# DeiT (2012.12877), table 1", False)],
)  # fmt: skip
def test_code_is_distinguished_from_a_sentence(comment: str, code: bool) -> None:
    assert is_code(comment) is code


def test_no_file_or_folder_has_a_catch_all_name() -> None:
    catch_all = {"util", "utils", "common", "helper", "helpers", "misc", "tools", "stuff"}
    check({
        str(path.relative_to(ROOT)): part
        for path in project_files()
        for part in path.relative_to(ROOT).parts
        if part.split(".")[0].lower() in catch_all
    })  # fmt: skip
