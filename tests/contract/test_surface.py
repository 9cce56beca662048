"""What users type stays as it is, unless somebody means to change it."""

import re

import pytest
from tests.contract.surface import FILE, describe

import vitreous


def test_surface_is_the_one_that_was_agreed_upon() -> None:
    agreed, found = FILE.read_text(encoding="utf-8").splitlines(), describe().splitlines()
    gone, new = [line for line in agreed if line not in found], [line for line in found if line not in agreed]
    assert (gone, new, found) == ([], [], agreed), (
        "what users type has changed. If that is meant: `python -m tests.contract.surface` writes "
        "tests/contract/surface.txt anew, CHANGELOG.md gets a line, and both go into the same commit"
    )


def test_public_names_are_few_and_exist() -> None:
    names = ["Run", "Series", "compare", "create_model", "load_model", "load_run", "train", "train_series"]
    assert vitreous.__all__ == names
    assert all(callable(getattr(vitreous, name)) for name in vitreous.__all__)


@pytest.mark.parametrize("section", ["python", "command line", "configuration", "recipes", "run folder"])
def test_no_section_is_empty(section: str) -> None:
    found = re.search(rf"^\[{section}\]\n(.+)$", describe(), re.MULTILINE)
    assert found
    assert not found[1].startswith("[")
