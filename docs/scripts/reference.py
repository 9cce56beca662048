"""The code of the package -> pages of the reference, as Markdown."""

import ast
import importlib
import inspect
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from vitreous import errors
from vitreous.cli.main import COMMANDS, app, command
from vitreous.training.folder import run_folder

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "vitreous"
ROOMS = {
    "data": "Data", "model": "Models and weights", "objective": "Losses", "optim": "Optimizers",
    "recipe": "Plans and keys", "training": "Training",
    "use": "Prediction, evaluation, export and the server", "cli": "Command line",
}  # fmt: skip


def commands() -> str:
    """Return the help of every command."""
    for name in COMMANDS:
        command(name)
    words = app.generate_docs(output_format="markdown", heading_level=2)
    words = re.sub(r"^vitreous (\w+) \1 ", r"vitreous \1 ", words[words.index("\n### ") :], flags=re.MULTILINE)
    found = {name: part for part in words.split("\n### vitreous ")[1:] for name in [part.split()[0]]}
    parts = [f"## vitreous {found[name].strip()}\n" for name in COMMANDS]
    return (
        "# Commands\n\nThis is what `vitreous COMMAND --help` prints. `vitreous train` also takes every\n"
        "[configuration key](../keys.md) as an option.\n\n" + "\n".join(parts)
    )


def run_folder_page() -> str:
    """Return the table of the files of a run and of a series, from the docstrings of their paths."""
    tree = ast.parse(inspect.getsource(run_folder))
    page = "# The run folder\n\n`vitreous train` creates one folder per run. See [file formats](files.md) too.\n"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name != "Inside":
            page += "\n## A run\n" if node.name == "RunFolder" else "\n## A series of runs\n"
            page += "\n| file | content |\n|---|---|\n"
            for assigned, about in zip(node.body, node.body[1:], strict=False):
                if isinstance(assigned, ast.Assign) and isinstance(assigned.value, ast.Call):
                    name, meaning = ast.literal_eval(assigned.value.args[0]), ast.literal_eval(about.value)  # type: ignore[attr-defined]
                    page += f"| `{name}` | {re.sub(r'; see `[^`]*`', '', ' '.join(meaning.split()))} |\n"
    return page


def errors_page() -> str:
    """Return the classes of errors, and every message with its advice, by room."""
    drawn = inspect.cleandoc(errors.__doc__ or "").split("\n\n")
    page = (
        "# Errors\n\nEvery error says on one line what is wrong with which value, and after the semicolon what to do:\n"
        "`<key or thing>=<got>: <rule broken>; <what to do>`. `--debug` adds the traceback. The exit code is 2 for a\n"
        "mistake in the request or in the data, 1 for other failures, and 130 after Ctrl-C. In Python, each error is\n"
        f"also one of Python's own, such as `ValueError`:\n\n```text\n{inspect.cleandoc(drawn[1])}\n```\n\n"
        "These are the messages; `…` is what depends on your request. Search for the words that do not change.\n"
    )
    found = _messages()
    for room, title in ROOMS.items():
        page += f"\n## {title}\n\n" + "".join(f"- {name}: `{text}`\n" for text, name in sorted(found[room].items()))
    return page


def _messages() -> dict[str, dict[str, str]]:
    """Return room -> message -> class, of every error that is raised with a text in place."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            name, text = getattr(node.exc.func, "id", ""), _template(node.exc.args[0])
            if hasattr(errors, name) and ";" in text and room in ROOMS:
                found[room][text.replace("`", "'")] = name
    return found


def _template(node: ast.expr) -> str:
    """Return a text with `…` for what is put in when the program runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return "…"


def results_page() -> str:
    """Return the figures of the commands of the README, and what each stored result measures, where and when."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        rows = importlib.import_module("front_door").table_rows(_stored("front_door")[0]["runs"])
        rows += importlib.import_module("small_data").command_rows(_stored("small_data")[0]["runs"])
    finally:
        sys.path.pop(0)
    questions = re.findall(r"^\| `(\w+)\.py` \| (.+) \|$", _read("benchmarks/README.md"), re.MULTILINE)
    stored = []
    for name, question in questions:
        for found in _stored(name):
            machine = f"{found['hardware']['device_name']}, {found['hardware']['cpus']} cores"
            stored.append(f"| [`{name}.py`](../../benchmarks/{name}.py) | {question} | {machine} | {found['date']} |")
    return RESULTS.format(front_door="\n".join(rows), stored="\n".join(stored))


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _stored(name: str) -> list[dict[str, Any]]:
    """Return the results of a script, one per machine."""
    found = sorted((ROOT / "benchmarks" / "results").glob(f"*/{name}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


RESULTS = """# Results

This page is made from the files in `benchmarks/results/`, in which each script stores its results.
[Speed](../speed.md), [fine-tuning](../transfer.md#measured) and [explanations](../explanations.md#measured)
discuss theirs.

## One command

Each row is one command without further options, on two cores of a shared AMD EPYC (Zen 3, without bf16). Other
programs ran on the same machine, and its speed varied several-fold within an hour. The row of Fashion-MNIST was
measured before small images were trained with a convolutional stem and Muon.

| command | test images | accuracy (95% interval) | total time |
|---|---|---|---|
{front_door}

## What was measured

| script | question | hardware | date |
|---|---|---|---|
{stored}
"""
