"""A case -> the error that it provokes is checked, its advice is followed, and that works.

A case is a generator. It yields a call that must be refused and the advice that the message must give; what it does
next follows that advice, and must not be refused. The place in the source that raised the error is looked up, so that
an error without a case is noticed.
"""

import ast
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.contract.sources import PACKAGE, modules, name_of

from vitreous import errors
from vitreous.errors import VitreousError

Refusals = Iterator[tuple[Callable[[], object], str]]
Case = Callable[[Path], Refusals]

WITHOUT_ADVICE = {"DecodeError"}
"""Names the file and the reason; its caller says what to do."""

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Register a case by the name of its function."""
    CASES[function.__name__] = function
    return function


@cache
def walk(name: str) -> frozenset[str]:
    """Provoke the errors of a case in an empty folder and follow their advice; return the places that raised them."""
    places()  # now, since a case may replace functions that read files
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        for call, advice in CASES[name](Path(folder)):
            try:
                call()
            except VitreousError as error:
                text = str(error)
                assert advice in text.partition(": ")[2], f"{text!r} does not give the advice {advice!r}"
                assert text.isprintable()
                found.add(place_of(error))
            else:
                raise AssertionError(f"not refused: {name}, {advice!r}")
    return frozenset(found)


def place_of(error: VitreousError) -> str:
    """Return the entry of `places` for the statement that raised an error."""
    found = ""
    step = error.__traceback__
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            found = next((p for (file, first, last), p in places().items() if file == name_of(path) and
                          first <= step.tb_lineno <= last), found)  # fmt: skip
        step = step.tb_next
    return found


@cache
def places() -> dict[tuple[str, int, int], str]:
    """Return (file, first line, last line) of each statement that raises an error with advice -> its name."""
    classes = {name for name in vars(errors) if isinstance(getattr(errors, name), type)} - WITHOUT_ADVICE
    makers = {
        node.name
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) in classes
    }
    found: dict[tuple[str, int, int], str] = {}
    for file, tree in modules().items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                call = node.exc if isinstance(node, ast.Raise) else None
                if isinstance(call, ast.Call) and ast.unparse(call.func) in classes | makers:
                    place = file, node.lineno, node.end_lineno or node.lineno
                    text = _text(call.args[0]) if ast.unparse(call.func) in classes else ""
                    if text == "…: …" and isinstance(node, ast.Raise) and node.cause:
                        continue  # the advice is that of its cause
                    shown = text if text.strip("…: ") else ast.unparse(call)
                    found[place] = f"{file} {function.name}: {shown}"[:160]
    return found


def not_walked() -> list[str]:
    """Return the places without a case."""
    return sorted(set(places().values()).difference(*map(walk, CASES)))


def _text(node: ast.AST) -> str:
    """Return the text of a message, with … for its values."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(map(_text, parts))
        case ast.BinOp(left, ast.Add(), right):
            return _text(left) + _text(right)
        case ast.Call(ast.Attribute(text, "format")):
            return _text(text)
    return "…"
