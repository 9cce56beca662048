"""Names, options and keys that users type change only deliberately."""

import re

import pytest
from tests.contract.surface import FILE, describe

import vitreous


def test_surface_is_the_stored_one() -> None:
    stored, found = FILE.read_text(encoding="utf-8").splitlines(), describe().splitlines()
    gone, new = [line for line in stored if line not in found], [line for line in found if line not in stored]
    assert (gone, new, found) == ([], [], stored), (
        "the surface has changed. If that is intended, run `python -m tests.contract.surface` to update "
        "tests/contract/surface.txt, and add a line to CHANGELOG.md in the same commit"
    )


def test_public_names_are_few_and_exist() -> None:
    functions = ["compare", "create_model", "embed", "explain", "load_model", "load_run", "register", "train"]
    assert vitreous.__all__ == ["Run", "Series", "VitreousClassifier", *functions]
    assert all(callable(getattr(vitreous, name)) for name in vitreous.__all__)


@pytest.mark.parametrize("section", ["python", "command line", "configuration", "recipes", "run folder"])
def test_no_section_is_empty(section: str) -> None:
    found = re.search(rf"^\[{section}\]\n(.+)$", describe(), re.MULTILINE)
    assert found
    assert not found[1].startswith("[")
