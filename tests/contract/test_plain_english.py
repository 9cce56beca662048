"""Prose of the project -> phrases that do not read like plain English, and British spelling.

`python -m tests.contract.test_plain_english PATH ...` lists the findings in files or folders.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.sources import ROOT, project_files

DIALECT = (
    r"\balone\b", r"\banew\b", r"\bbeside\b", r"\btold\b", r"\btells?\b", r"\btelling\b", r"\bwish(es|ed)?\b",
    r"\bso many\b", r"\bas many\b", r"\bnobody\b", r"\bsomebody\b", r"\bwhoever\b", r"\bshall\b", r"\bby heart\b",
    r"\bstands?\b(?! for\b)", r"\bstood\b", r"\banyhow\b", r"\bhas no say\b", r"\bsay in\b",
    r"\btrain(ed)? on others\b", r"\bthe one of\b", r"\bthose of others\b", r"\bof its own kind\b",
    r"\bwhat is not there\b", r"\bis no (path|file|number|image|run)\b", r"\bflatters?\b", r"\bknows? nothing of\b",
    r"\bgive or take\b", r"\bhalf of them\b", r"\ba way out\b", r"\bgoes? by the\b",
    r"\bdivided (weights|among|model)\b", r"\bthrow-?away\b", r"\bfree to\b", r"\bthereof\b", r"\bwhat it says of\b",
    r"\blooks? back over\b", r"\bit is there that\b", r"\bneeds? not\b", r"\bbut for\b", r"\bmends?\b", r"\bmended\b",
    r"\bweigh(s|ed)? (in|nothing)\b", r"\bof late\b", r"\bholds? still\b", r"\bbecomes? of\b", r"\bhow sure\b",
    r"\bafresh\b", r"\blet go\b", r"\bwhere it (can|cannot|could)\b", r"\bthe same words\b",
)  # fmt: skip
IZE = (
    "normal", "optim", "initial", "recogn", "organ", "summar", "real", "general", "regular", "parallel", "serial",
    "token", "visual", "quant", "memor", "minim", "maxim", "random", "special", "standard", "util", "categor",
    "emphas", "synchron", "character",
)  # fmt: skip
"""Stems of words that American English spells with -ize."""
SPELLING = (
    r"\d %", r"\b(grey|colou?rise|colour)\w*", r"\bbehaviour", r"\bneighbour", r"\bcentre\b", r"\bfavour",
    r"\blicence\b", r"\blabell(ed|ing)\b", r"\bmodell(ed|ing)", r"\bcancell(ed|ing)",
    rf"\b\w*({'|'.join(IZE)})is(e|es|ed|er|ers|ing|ation|ations)\b",
)  # fmt: skip
PATTERN = re.compile("|".join((*DIALECT, *SPELLING)), re.IGNORECASE)
ALLOWED: dict[str, str] = {}
"""`file: phrase` -> why it is allowed."""
THIS = Path(__file__).resolve()
SUFFIXES = (".py", ".md", ".ipynb", ".toml", "")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and texts: a whole document; of a Python file its strings, comments and test names."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            yield from enumerate(token.string.splitlines(), start=token.start[0])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def findings(paths: list[Path]) -> dict[str, str]:
    """Return `file:line:column` -> the phrase and its line."""
    found = {}
    for path in paths:
        for number, line in prose(path):
            for match in PATTERN.finditer(line):
                name = path.relative_to(ROOT).as_posix()
                if f"{name}: {match[0]}" not in ALLOWED:
                    found[f"{name}:{number}:{match.start()}"] = f"{match[0]!r} in {line.strip()[:140]}"
    return found


def documents(folders: list[Path]) -> list[Path]:
    """Return the documents and code in these folders or files, without the license and stored results."""
    return [
        path
        for path in project_files()
        if path.suffix in SUFFIXES
        and path.name not in ("LICENSE", "CHANGELOG.md")
        and path != THIS
        and any(path == folder or folder in path.parents for folder in folders)
    ]


def test_prose_is_plain_american_english() -> None:
    assert findings(documents([ROOT])) == {}


def test_every_exception_is_needed() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents([ROOT])}
    assert [key for key in ALLOWED if key.split(": ")[1] not in texts[key.split(": ")[0]]] == []


@pytest.mark.parametrize(
    "text", ["the weights alone", "as he was told", "98.8 %", "it stands in its folder", "normalised"]
)
def test_other_english_is_noticed(text: str) -> None:
    assert PATTERN.search(text)


@pytest.mark.parametrize(
    "text", ["98.8%", "stands for", "standard", "only the weights", "normalized", "parallel", "realistic"]
)
def test_plain_english_is_accepted(text: str) -> None:
    assert not PATTERN.search(text)


if __name__ == "__main__":
    for place, text in findings(documents([Path(name).resolve() for name in sys.argv[1:]] or [ROOT])).items():
        print(f"{place}: {text}")
