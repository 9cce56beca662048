"""No file of the project contains a path of a local machine or the address of a package registry."""

import re

import pytest
from tests.contract.sources import ROOT, project_files


def path(*parts: str) -> str:
    """Return an absolute path; composed, so that this file does not contain what it searches for."""
    return "/" + "/".join(parts)


MACHINE = re.compile(r"(?<![\w.~})*-])/(?:work|tmp|root|home|Users|mnt)\b(?=/)", re.ASCII)
REGISTRY = re.compile(r"\bpypi[.]org|pythonhosted|npmjs[.]|anaconda[.]|index[-]url", re.IGNORECASE)
EXCEPTIONS = {
    "tests/contract/test_example_notebook.py": "lists what the notebook must not contain",
    "tests/contract/test_project_words.py": "lists what no file may contain",
}
TEXTS = {"", ".cff", ".cfg", ".ini", ".ipynb", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}


@pytest.mark.parametrize("words", [MACHINE, REGISTRY], ids=["path", "registry"])
def test_no_file_contains_a_local_path_or_a_registry(words: "re.Pattern[str]") -> None:
    found = {}
    for file in project_files():
        name = file.relative_to(ROOT).as_posix()
        if file.suffix.lower() in TEXTS and name not in EXCEPTIONS:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                if words.search(line):
                    found[f"{name}:{number}"] = line.strip()[:120]
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [path("work", "x"), f"see {path('tmp', 'a.png')}", f'"{path("root", "run")}"', f"({path('home', 'ann', 'b')})"],
)
def test_local_path_would_be_noticed(text: str) -> None:
    assert MACHINE.search(text)


@pytest.mark.parametrize("text", ["network/x", "a/home/b", "~/tmp/x", "https://pytorch.org", "{out}/root/x"])
def test_other_words_are_accepted(text: str) -> None:
    assert not MACHINE.search(text)
    assert not REGISTRY.search(text)


def test_files_of_the_project_are_found() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in project_files()}
    assert {"README.md", "pyproject.toml", "src/vitreous/__init__.py"} <= names
