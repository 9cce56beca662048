import inspect
import re
from pathlib import Path

import pytest

from vitreous import errors
from vitreous.errors import MissingDependencyError, UnknownNameError, VitreousError, nearest, optional_module
from vitreous.model import create_model

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
def test_text_of_an_error_is_only_its_message(error: type[VitreousError]) -> None:
    assert str(error("a=1: b; c")) == "a=1: b; c"
    assert str(error()) == ""


def test_unknown_name_error_is_not_quoted_like_a_key_error() -> None:
    assert str(UnknownNameError("x=y: no such x; use z")) == "x=y: no such x; use z"


def test_nearest_name_is_suggested_otherwise_all_are_listed() -> None:
    assert nearest("adamv", ["sgd", "adamw"]) == "did you mean adamw?"
    assert nearest("qqq", ["sgd", "adamw"]) == "use one of adamw, sgd"


def test_long_list_is_cut_and_counted() -> None:
    names = [f"name{number:02}" for number in range(15)]
    assert nearest("qqq", names) == f"use one of {', '.join(names[:12])}, … (15 in total)"


def test_hint_replaces_a_long_list_if_no_name_is_near() -> None:
    names = [f"name{number:02}" for number in range(13)]
    assert nearest("qqq", names, hint="see the list") == "see the list"
    assert nearest("qqq", names[:12], hint="see the list") == f"use one of {', '.join(names[:12])}"
    assert nearest("name11x", names, hint="see the list") == "did you mean name11?"


def test_unknown_model_far_from_all_names_lists_the_families() -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model("resnet18")
    assert str(caught.value) == (
        "model=resnet18: no such model; use a name such as vit_small_patch16_224; known families: "
        "aimv2_…, deit_…, deit3_…, eva_…, flexivit_…, test_…, vit_…"
    )


def test_message_is_one_line_whatever_names_it_contains() -> None:
    assert str(UnknownNameError("a=\x1b[31mb\nc\udcff\u202e: no such ä …")) == (
        r"a=\x1b[31mb\nc\udcff\u202e: no such ä …"
    )


def test_module_whose_import_fails_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_a.py").write_text("raise RuntimeError('operator nms does\\nnot exist')")
    (tmp_path / "broken_b.py").write_text("import not_there")
    monkeypatch.syspath_prepend(tmp_path)
    way_out = "install {0} and the packages it needs again, in versions that fit each other"
    for name, reason in (("broken_a", "operator nms does not exist"), ("broken_b", "No module named 'not_there'")):
        with pytest.raises(MissingDependencyError) as caught:
            optional_module(name, "to=x", "run `pip install x`")
        said = f"to=x: {name} is installed, but cannot be imported ({reason}); {way_out.format(name)}"
        assert str(caught.value) == said
    with pytest.raises(MissingDependencyError, match=r"^to=x: needs not_there, which is not installed; run `pip"):
        optional_module("not_there.part", "to=x", "run `pip install x`")
