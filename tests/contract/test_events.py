"""Events of a run: every kind that is recorded or shown has its place on the screen, or is deliberately silent."""

import ast

from tests.contract.sources import modules

from vitreous.cli.screen import SILENT, Screen

SENDERS = {"record", "show", "listen", "listener"}
"""Functions and methods that take the kind of an event and its fields."""


def kinds() -> set[str]:
    """Return the kinds of all events that the package sends."""
    return {
        node.args[0].value
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in SENDERS
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_every_kind_of_event_is_shown_or_deliberately_silent() -> None:
    assert kinds() == set(Screen().shown) | SILENT
